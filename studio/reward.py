"""What a reward is: a number for an answer, by a rule, a model or a program. Its knobs, and what it needs."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import BaseModel, Field

from studio.evaluation.questions import Question
from studio.knob import KNOBS

Scorer = Callable[[Sequence[str], Sequence[Question]], list[float | None]]  # (answers, their questions) -> rewards


class Reward(BaseModel, ABC):
    """One reward with its knobs set: Regex(pattern="…"). Knobs are pydantic fields, as a method's are."""

    model_config = KNOBS

    name: str
    list_position: ClassVar[int] = 99  # in lists of rewards, ascending
    label: ClassVar[str]  # "Pattern"
    about: ClassVar[str]  # one sentence: which answers get how much
    needs_reference: ClassVar[bool] = False  # whether it compares with the answer in the data

    weight: float = Field(1.0, ge=-100, le=100, title="Weight")
    """Times which it counts in the sum of all rewards; below zero it is a penalty."""

    @property
    def run_id(self) -> str:
        """The reward model's run that it asks, or ""."""
        return ""

    @property
    def address(self) -> str:
        """The address of a server that it asks, or ""."""
        return ""

    @property
    def code(self) -> str:
        """The file of a program that it runs, or ""."""
        return ""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The regular expressions that it searches answers for."""
        return ()

    def compares_with(self, reference: str) -> bool:
        """Whether it can compare an answer with this one of the data."""
        return bool(reference.strip())

    def score(self, text: str, question: Question) -> float | None:
        """The reward of one answer; None where it has none to give."""
        raise NotImplementedError

    def open(self) -> Scorer:
        """A function that rewards many answers at once. Raises StudioError. Runs and addresses: worker/scorers.py."""
        return lambda texts, questions: list(map(self._score, texts, questions))

    def _score(self, text: str, question: Question) -> float | None:
        if self.needs_reference and not self.compares_with(question.reference):
            return None
        return self.score(text, question)
