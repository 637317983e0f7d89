"""Answers to the sample prompts over time, as sample events: the untouched base, every evaluation, the end.

They may take SHARE of the run's time. Every round is measured; the next one is shortened to what is left for it, or
left out where that would not be a sentence. Rounds that the user asks for are answered whole.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from studio.evaluation.questions import Question
from studio.kernels import SAMPLE_MAX_NEW_TOKENS
from studio.talk.stopping import end_token_ids
from studio.tokens import Encoder
from studio.worker import distributed

SHARE = 0.03  # of the run's time
LEAST_TOKENS = 12  # of an answer; a round that has no time for so many is left out
TIMED_TOKENS = 4  # generated before the first round, to know what a token costs


class Budget(NamedTuple):
    """seconds: for the next round, None without a limit; tokens: of each of its answers."""

    seconds: float | None
    tokens: int


def budget(
    total: float, spent: float, rounds_left: int, prompts: int, token_seconds: float, is_end: bool, waited: int = 0
) -> Budget:
    """What the next round may take.

    total: seconds that the run takes; spent: by samples so far; rounds_left: with this one; token_seconds: of one
    token; waited: rounds left out since the last. The untouched base and the end (is_end) have LEAST_TOKENS in any
    case, and the others leave room for the end; where not all have room, as many as have are spread evenly.
    """
    pool, least = SHARE * total - spent, prompts * LEAST_TOKENS * token_seconds
    if is_end:
        seconds = max(pool / max(1, rounds_left), least)
    else:
        pool, rounds_left = pool - least, max(1, rounds_left - 1)
        seconds = pool / rounds_left
        if seconds < least <= pool and (waited + 1) * pool >= rounds_left * least:
            seconds = least
    tokens = int(max(0.0, seconds) / max(1, prompts) / max(token_seconds, 1e-6) + 1e-6)
    return Budget(max(0.0, seconds), min(tokens, SAMPLE_MAX_NEW_TOKENS))


class Samples:
    """Called with a step, emits the answer to every prompt. Decoding is greedy: no random number is drawn."""

    def __init__(
        self,
        questions: Sequence[Question],
        encoder: Encoder,
        trainer: Any,
        seconds: float | None,
        rounds: int,
        has_start: bool = False,
    ):
        """seconds: that the run is expected to take; rounds: of samples in it; has_start: its adapter was trained by
        another run, so that the answers before the first step are those with the adapter.
        """
        self.has_start = has_start
        self.questions, self.encoder, self.trainer = tuple(questions), encoder, trainer
        self.expected, self.rounds = seconds or 0.0, rounds
        self.spent, self.asked, self.token_seconds = 0.0, 0, 0.0
        self._started, self._first_step, self._first_at = time.monotonic(), 0, None
        self._said: set[str] = set()
        self._waited = 0  # rounds left out since the last
        self.base_is_due = False
        template = encoder.template
        self.stop_tokens = end_token_ids(encoder.tokenizer, template.stop_strings, template, encoder.folder)

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(question.text for question in self.questions)

    def __call__(self, step: int, whole: bool = False) -> None:
        """whole: the user asked for it. What the base says under an adapter can wait until a step is done."""
        if self.trainer.sharded or not distributed.is_main():
            return  # a sharded model answers only when all processes ask at once
        if step == 0 and base_stays(self.trainer.accelerator.unwrap_model(self.trainer.model)):
            self.base_is_due = True
            return
        self.after_step()
        self._round(step, whole)

    def after_step(self) -> None:
        """The round of the untouched base, where it is still due."""
        if self.base_is_due:
            self.base_is_due = False
            self._round(0)

    def _round(self, step: int, whole: bool = False) -> None:
        if not self.token_seconds:
            for tokens in (1, TIMED_TOKENS):  # the first answer of a process is slower than all others
                self._answer_all(step, Budget(None, tokens), self.questions[:1], quiet=True)
        allowed = Budget(None, SAMPLE_MAX_NEW_TOKENS) if whole else self._allowed(step)
        if allowed.tokens < LEAST_TOKENS:
            self._say("Samples are left out at some evaluations: they would take more than {share:.0%} of the time.")
            self._waited += 1
            return
        self._waited = 0
        if allowed.tokens < SAMPLE_MAX_NEW_TOKENS:
            self._say("Answers to the sample prompts are cut short: they may take {share:.0%} of the run's time.")
        before = self.spent
        self._answer_all(step, allowed, self.questions)
        self.spent = before if whole else self.spent

    def _allowed(self, step: int) -> Budget:
        self.asked += 1
        steps = self.trainer.state.max_steps or 1
        now = time.monotonic()
        if self._first_at is None:
            self._first_at, self._first_step = now, max(step, self.trainer.state.global_step)
        done = step - self._first_step
        measured = (now - self._first_at) / done * steps if done > 0 else self.expected
        total = measured + self._first_at - self._started
        rounds_left = max(1, self.rounds - self.asked + 1)
        is_end = self.asked == 1 or step >= steps
        prompts = len(self.questions)
        return budget(total, self.spent, rounds_left, prompts, self.token_seconds, is_end, self._waited)

    def _say(self, text: str) -> None:
        """Say it once a run."""
        if text not in self._said:
            self.trainer.report.note(text.format(share=SHARE))
        self._said.add(text)

    def _answer_all(self, step: int, allowed: Budget, questions: Sequence[Question], quiet: bool = False) -> None:
        """Answer, emit the answers unless `quiet`, and take the time."""
        began = time.monotonic()
        seconds = None if allowed.seconds is None else allowed.seconds / len(questions)
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        was_training, generated = model.training, 0
        model.eval()
        try:
            with untouched(model) if step == 0 and not self.has_start else contextlib.nullcontext():
                for question in questions:
                    ids = self._generate(model, question, allowed.tokens, seconds)
                    generated += len(ids)
                    if quiet:
                        continue
                    is_cut = len(ids) < SAMPLE_MAX_NEW_TOKENS and not set(ids[-1:]) & set(self.stop_tokens)
                    self.trainer.report.emit(
                        "sample",
                        step=step,
                        prompt=question.text,
                        answer=self.encoder.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd"),
                        **({"reference": question.reference} if step == 0 and question.reference else {}),
                        **({"cut": True} if is_cut else {}),
                    )
        finally:
            model.train(was_training)
        took = time.monotonic() - began
        self.spent += took
        self.token_seconds = took / max(1, generated)

    def _generate(self, model: Any, question: Question, tokens: int, seconds: float | None) -> list[int]:
        prompt_ids = self.encoder.prompt_ids(question.messages, **question.variables)
        input_ids = torch.tensor([prompt_ids], device=self.trainer.args.device)
        dtype = self.trainer.dtype
        with torch.no_grad(), torch.autocast(input_ids.device.type, dtype, enabled=dtype != torch.float32):
            output = model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=tokens,
                max_time=seconds,
                do_sample=False,
                use_cache=True,
                eos_token_id=self.stop_tokens or None,
                pad_token_id=self.stop_tokens[0] if self.stop_tokens else 0,
            )
        ids = output[0].tolist()  # behind virtual tokens peft generates from embeddings: the new tokens alone
        return ids[len(prompt_ids) :] if ids[: len(prompt_ids)] == prompt_ids else ids


def base_stays(model: Any) -> bool:
    """Whether the base can be asked during training. PiSSA and OLoRA have taken their start out of its weights."""
    return hasattr(model, "disable_adapter") and not hasattr(model, "initial_lora")


def untouched(model: Any) -> Any:
    """The base under an adapter while the block lasts: freshly made virtual tokens would change its answers."""
    return model.disable_adapter() if base_stays(model) else contextlib.nullcontext()
