"""The answer matches a regular expression: a form that answers are to have."""

from __future__ import annotations

from typing import ClassVar, Literal

import regex
from pydantic import Field, field_validator

from studio.reward import Asked, Reward
from studio.text.patterns import compile_pattern

SECONDS = 1.0  # for one answer


class Regex(Reward):
    """Searched with the `regex` library, in bounded time."""

    name: Literal["regex"] = Field("regex", frozen=True, title="Reward", description="A pattern.")
    list_position: ClassVar[int] = 2
    label: ClassVar[str] = "Pattern"
    about: ClassVar[str] = "1 where the pattern is found in the answer, else 0."

    pattern: str = Field(
        min_length=1,
        max_length=2000,
        title="Pattern",
        description="A regular expression: ^Answer: begins so, \\.$ ends so, (?s)<think>.*</think>.+ thinks first.",
    )

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, value: str) -> str:
        try:
            compile_pattern(value)
        except ValueError as error:
            raise ValueError(f"this pattern cannot be read: {error}") from None
        return value

    def score(self, text: str, asked: Asked) -> float:
        try:
            return float(regex.search(self.pattern, text, timeout=SECONDS) is not None)
        except TimeoutError:
            return 0.0
