"""The answer is the one in the data."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from studio.evaluation.questions import Question
from studio.evaluation.scores import final
from studio.evaluation.task import label
from studio.reward import Reward


class Exact(Reward):
    """As the score exact_match of an evaluation."""

    name: Literal["exact"] = Field("exact", frozen=True, title="Reward", description="The answer in the data.")
    list_position: ClassVar[int] = 0
    label: ClassVar[str] = "Same as the answer in the data"
    about: ClassVar[str] = (
        "1 where the answer says what the row's own answer says, else 0; thinking before it is left out."
    )
    needs_reference: ClassVar[bool] = True

    loose: bool = Field(True, title="Loosely")
    """Case, blanks and punctuation around the answer do not matter."""

    def score(self, text: str, question: Question) -> float:
        plain = label if self.loose else _one_blank
        return float(plain(final(text)) == plain(final(question.reference)))


def _one_blank(text: str) -> str:
    return " ".join(text.split())
