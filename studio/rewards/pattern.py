"""The answer matches a regular expression: a form that answers are to have."""

from __future__ import annotations

from typing import ClassVar, Literal

import regex
from pydantic import Field

from studio.evaluation.questions import Question
from studio.reward import Reward
from studio.text.patterns import SECONDS, Pattern


class Regex(Reward):
    """Searched with the `regex` library, in bounded time."""

    name: Literal["regex"] = Field("regex", frozen=True, title="Reward", description="A pattern.")
    list_position: ClassVar[int] = 2
    label: ClassVar[str] = "Pattern"
    about: ClassVar[str] = "1 where the pattern is found in the answer, else 0."

    pattern: Pattern = Field(
        min_length=1,
        title="Pattern",
        description="A regular expression: ^Answer: begins so, \\.$ ends so, (?s)<think>.*</think>.+ thinks first.",
    )

    @property
    def patterns(self) -> tuple[str, ...]:
        return (self.pattern,)

    def score(self, text: str, question: Question) -> float:
        try:
            return float(regex.search(self.pattern, text, timeout=SECONDS) is not None)
        except TimeoutError:
            return 0.0
