"""The brake on forgetting: in every step a few general prompts on which the model is to stay what the base was.

kl: strength · KL(base ‖ model), the base's distribution taken before the first step (worker/base_answers.py), as
knowledge distillation does (Hinton et al. 2015, arXiv 1503.02531; against forgetting: Li and Hoiem 2016, arXiv
1606.09282). replay: strength · cross entropy of the base's own greedy answers (self-distillation). Both per token.

The prompts are not those that forgetting is measured on. Which ones a step sees depends on its number only, so that a
resumed run goes on as if it had not stopped; every process sees the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from studio import general
from studio.errors import OrderError
from studio.kernels import IGNORE_INDEX
from studio.talk.stopping import end_token_ids
from studio.tokens import Encoder
from studio.worker.base_answers import Target, ask_base, divergence, encode, join, target_batch, target_log_probs
from studio.worker.loss import unwrap
from studio.worker.memory import in_halves
from studio.worker.modes import as_base, evaluating
from studio.worker.packing import Row, left_padded

ANSWER_TOKENS = 64  # most new tokens of a replayed answer
TEXT_PROMPT = 8  # first tokens of a plain text that the base continues
ANSWERED_AT_ONCE = 20


class Brake:
    """Called with the model and the number of a step, returns the penalty of that step, with its gradient.

    All its batches lie on the device from the start, some megabytes: copied step by step, each would be waited for.
    """

    def __init__(self, trainer: Any, strength: float, rows: list[Row], base: list[Target] | None):
        self.strength, device = strength, trainer.args.device
        groups = group(rows)
        self.batches = [target_batch(trainer.model, [rows[n] for n in numbers], device) for numbers in groups]
        self.base = None if base is None else [join([base[number] for number in numbers], device) for numbers in groups]

    def largest_step(self) -> int:
        """The number of a step whose batch has the most tokens, padding included."""
        sizes = [batch.input_ids.numel() for batch in self.batches]
        return sizes.index(max(sizes))

    def __call__(self, model: Any, step: int) -> torch.Tensor:
        number = step % len(self.batches)
        log_probs = target_log_probs(model, self.batches[number])
        if self.base is None:
            penalty = functional.nll_loss(log_probs, self.batches[number].targets)
        else:
            penalty = divergence(log_probs, self.base[number]).mean()
        return self.strength * penalty


def group(rows: Sequence[Row]) -> list[list[int]]:
    """Row numbers of the batches, alike in length, in an order that mixes kinds and lengths."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]["input_ids"]))
    groups: list[list[int]] = []
    for number in order:
        width = len(rows[number]["input_ids"])
        full = not groups or len(groups[-1]) == general.BRAKE_ROWS
        if full or (len(groups[-1]) + 1) * width > general.BRAKE_TOKENS:
            groups.append([])
        groups[-1].append(number)
    random.Random(0).shuffle(groups)
    return groups


Answers = tuple[list[Row], list[Target] | None]  # of the base: the rows of the brake, and what it makes of them


def start(
    trainer: Any, encoder: Encoder, strength: float, by: str, known: dict[Any, Answers] | None = None
) -> Brake | None:
    """Ask the base, before the first step and before a checkpoint is loaded. None where strength is 0.

    known: a cache of the base's answers, by (by, id of the encoder).
    """
    if not strength:
        return None
    known, key = {} if known is None else known, (by, id(encoder))
    if key not in known:
        known[key] = _ask(trainer, encoder, by)
    return Brake(trainer, strength, *known[key])


def _ask(trainer: Any, encoder: Encoder, by: str) -> Answers:
    if by == "replay" and trainer.sharded:
        message = "The base's own answers cannot be written while the model is split over several devices."
        hint = "Set training.keep_general_by to kl."
        raise OrderError(message, hint, "training.keep_general_by")
    items = encode(encoder, general.braked(), general.BRAKE_TOKENS)
    rows, base = [row for _, row in items], None
    with evaluating(trainer) as model, as_base(model):
        if by == "replay":
            rows = own_answers(model, encoder, [item for item, _ in items], trainer.args.device)
        else:
            base = ask_base(model, rows, trainer.args.device)
    return rows, base


@torch.no_grad()
def own_answers(model: Any, encoder: Encoder, items: Sequence[general.Item], device: torch.device) -> list[Row]:
    """The base's greedy answers to the items' prompts, and its continuations of the texts, as rows to train on."""
    template = encoder.template
    ends = end_token_ids(encoder.tokenizer, template.stop_strings, template, encoder.folder)
    prompts = [_prompt(encoder, item)[: general.BRAKE_TOKENS - ANSWER_TOKENS] for item in items]

    def answer(several: Sequence[list[int]]) -> list[Row]:
        inputs = left_padded(several, device)
        output = unwrap(model).generate(
            **inputs,
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
        )
        rows = []
        for prompt, answer in zip(several, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((index + 1 for index, token in enumerate(answer) if token in ends), len(answer))
            labels = [IGNORE_INDEX] * len(prompt) + answer[:end]
            rows.append({"input_ids": prompt + answer[:end], "labels": labels})
        return rows

    parts = [prompts[start : start + ANSWERED_AT_ONCE] for start in range(0, len(prompts), ANSWERED_AT_ONCE)]
    return [row for part in parts for rows in in_halves(answer, part) for row in rows]


def _prompt(encoder: Encoder, item: general.Item) -> list[int]:
    if item.text:
        return encoder.encode({"text": item.text}, whole=True).ids[:TEXT_PROMPT]
    return encoder.prompt_ids([{"role": "user", "content": item.prompt}])
