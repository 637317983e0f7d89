"""Answers to the sample prompts during training, as sample events: one reads how they change."""

from __future__ import annotations

from typing import Any

import torch

from studio.kernels import SAMPLE_MAX_NEW_TOKENS
from studio.talk.stopping import end_token_ids
from studio.tokens import Encoder
from studio.worker import distributed


class Samples:
    """Called with a step, emits the answer to every prompt. Decoding is greedy: no random number is drawn."""

    def __init__(self, prompts: tuple[str, ...], encoder: Encoder, trainer: Any):
        self.prompts, self.encoder, self.trainer = prompts, encoder, trainer
        template = encoder.template
        self.stop_tokens = end_token_ids(encoder.tokenizer, template.stop_strings, template, encoder.folder)

    def __call__(self, step: int) -> None:
        if self.trainer.sharded or not distributed.is_main():
            return  # a sharded model answers only when all processes ask at once
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        was_training = model.training
        model.eval()
        try:
            for prompt in self.prompts:
                self.trainer.report.emit("sample", step=step, prompt=prompt, answer=self.answer(model, prompt))
        finally:
            model.train(was_training)

    def answer(self, model: Any, prompt: str) -> str:
        prompt_ids = self.encoder.prompt_ids([{"role": "user", "content": prompt}])
        input_ids = torch.tensor([prompt_ids], device=self.trainer.args.device)
        dtype = self.trainer.dtype
        with torch.no_grad(), torch.autocast(input_ids.device.type, dtype, enabled=dtype != torch.float32):
            output = model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=SAMPLE_MAX_NEW_TOKENS,
                do_sample=False,
                use_cache=True,
                eos_token_id=self.stop_tokens or None,
                pad_token_id=self.stop_tokens[0] if self.stop_tokens else 0,
            )
        # Behind virtual tokens peft generates from embeddings, and the new tokens are returned alone.
        new_tokens = output[0, len(prompt_ids) :] if output.shape[1] > len(prompt_ids) else output[0]
        return self.encoder.tokenizer.decode(new_tokens.tolist(), skip_special_tokens=True)
