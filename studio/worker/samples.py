"""Answers to the sample prompts over time, as sample events: the untouched base, every evaluation, the end.

They may take SHARE of the run's time. All prompts are answered at once, until the time of a round is over; a round
that has no time for a sentence is left out, but not the first and the last. Rounds that the user asks for are whole.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from studio.evaluation.questions import Question
from studio.kernels import SAMPLE_MAX_NEW_TOKENS
from studio.tokens import Encoder
from studio.worker import distributed, memory
from studio.worker.generate import Answer, Batch
from studio.worker.loss import context_length
from studio.worker.modes import as_base, evaluating, keeps_base
from studio.worker.rollouts import Ends
from studio.worker.sampling import Sampling

SHARE = 0.03  # of the run's time
LEAST_TOKENS = 12  # of an answer; a round that has no time for so many is left out


def budget(
    total: float, spent: float, rounds_left: int, token_seconds: float, is_end: bool, waited: int = 0
) -> float | None:
    """Seconds that the next round may take; None where it is left out.

    total: seconds that the run takes; spent: by samples so far; rounds_left: with this one; token_seconds: of one
    token of all answers; waited: rounds left out since the last. The untouched base and the end (is_end) are answered
    in any case, and the others leave room for the end; where not all have room, as many as have are spread evenly.
    """
    pool, least = SHARE * total - spent, LEAST_TOKENS * token_seconds
    if is_end:
        return max(0.0, pool / max(1, rounds_left))
    pool, rounds_left = pool - least, max(1, rounds_left - 1)
    seconds = pool / rounds_left
    if seconds >= least:
        return seconds
    return least if least <= pool and (waited + 1) * pool >= rounds_left * least else None


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
        self.ends = Ends.of(encoder, context_length(trainer.model, encoder.num_virtual_tokens))

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(question.text for question in self.questions)

    def __call__(self, step: int, whole: bool = False) -> None:
        """whole: the user asked for it. What the base says under an adapter can wait until a step is done."""
        if self.trainer.sharded or not distributed.is_main():
            return  # a sharded model answers only when all processes ask at once
        if step == 0 and keeps_base(self.trainer.accelerator.unwrap_model(self.trainer.model)):
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
        if not self.questions:
            return
        seconds = float("inf") if whole else self._allowed(step)
        if seconds is None:
            self._say("Samples are left out at some evaluations: they would take more than {share:.0%} of the time.")
            self._waited += 1
            return
        self._waited, began = 0, time.monotonic()
        share, questions = seconds / len(self.questions), self.questions
        if (
            memory.unless_short(
                lambda: memory.in_halves(lambda some: self._answer(step, some, share * len(some)), questions)
            )
            is None
        ):
            self.questions = ()
            self._say("Sample prompts are no longer answered: memory is too short for it.", "warning")
        self.spent += 0.0 if whole else time.monotonic() - began

    def _allowed(self, step: int) -> float | None:
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
        return budget(total, self.spent, rounds_left, self.token_seconds, is_end, self._waited)

    def _say(self, text: str, level: str = "info") -> None:
        """Emit a note, once a run."""
        if text not in self._said:
            self.trainer.report.note(text.format(share=SHARE), level)
        self._said.add(text)

    def _answer(self, step: int, questions: Sequence[Question], seconds: float) -> None:
        """Answer the questions as one batch, within `seconds`, and emit the answers."""
        began = time.monotonic()
        with (
            evaluating(self.trainer) as model,
            as_base(model) if step == 0 and not self.has_start else contextlib.nullcontext(),
        ):
            answers, tokens = self._generate(model, questions, began + seconds)
        self.token_seconds = (time.monotonic() - began) / tokens
        for question, answer in zip(questions, answers, strict=True):
            is_cut = answer.finish_reason != "stop" and len(answer.output_ids) < SAMPLE_MAX_NEW_TOKENS
            if is_cut:
                self._say("Answers to the sample prompts are cut short: they may take {share:.0%} of the run's time.")
            self.trainer.report.emit(
                "sample",
                step=step,
                prompt=question.text,
                answer=self.ends.text(answer.output_ids),
                **({"reference": question.reference} if step == 0 and question.reference else {}),
                **({"cut": True} if is_cut else {}),
            )

    def _generate(self, model: Any, questions: Sequence[Question], until: float) -> tuple[list[Answer], int]:
        """The answers, and the tokens of the longest: LEAST_TOKENS or more unless it ends."""
        batch, answers, tokens = Batch(model), [], 1
        for question in questions:
            prompt_ids = self.encoder.prompt_ids(question.messages, **question.variables)
            answers.append(self.ends.answer(prompt_ids, Sampling(SAMPLE_MAX_NEW_TOKENS, temperature=0)))
            batch.prefill_group(answers[-1:])
        while batch.answers and (tokens < LEAST_TOKENS or time.monotonic() < until):
            batch.step()
            tokens += 1
        if error := next((answer.error for answer in answers if answer.error is not None), None):
            raise error
        return answers, tokens
