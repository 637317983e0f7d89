"""Answers to the sample prompts while training, as sample events: one reads how they change."""

from __future__ import annotations

from typing import Any

import torch

from studio.kernels import SAMPLE_MAX_NEW_TOKENS
from studio.tokens import Encoder
from studio.worker import distributed
from studio.worker.loss import plain


class Samples:
    """Called with a step, asks every prompt and says the answers. The likeliest token each time: no random number is drawn."""

    def __init__(self, prompts: tuple[str, ...], encoder: Encoder, trainer: Any):
        self.prompts, self.encoder, self.trainer = prompts, encoder, trainer
        words = [encoder.tokenizer.token_to_id(word) for word in encoder.template.stop_strings]
        ends = plain(trainer.model).generation_config.eos_token_id
        self.ends = sorted(
            {
                *(word for word in words if word is not None),
                *(ends if isinstance(ends, list) else [] if ends is None else [ends]),
            }
        )

    def __call__(self, step: int) -> None:
        if self.trainer.split or not distributed.is_main():
            return  # a model in shards answers only when all processes ask at once
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        training = model.training
        model.eval()
        try:
            for prompt in self.prompts:
                self.trainer.report.emit("sample", step=step, prompt=prompt, answer=self.answer(model, prompt))
        finally:
            model.train(training)

    def answer(self, model: Any, prompt: str) -> str:
        ids = torch.tensor(
            [self.encoder.prompt_ids([{"role": "user", "content": prompt}])], device=self.trainer.args.device
        )
        kind = self.trainer.dtype
        with torch.no_grad(), torch.autocast(ids.device.type, kind, enabled=kind != torch.float32):
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=SAMPLE_MAX_NEW_TOKENS,
                do_sample=False,
                use_cache=True,
                eos_token_id=self.ends or None,
                pad_token_id=self.ends[0] if self.ends else 0,
            )
        new = out[0, ids.shape[1] :] if out.shape[1] > ids.shape[1] else out[0]
        return self.encoder.tokenizer.decode(new.tolist(), skip_special_tokens=True)
