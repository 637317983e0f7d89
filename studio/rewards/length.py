"""The answer is neither too short nor too long."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from studio.evaluation.questions import Question
from studio.evaluation.scores import RougeTokens, final
from studio.reward import Reward


class Length(Reward):
    """Linear outside of its limits, so that answers far off still differ."""

    name: Literal["length"] = Field("length", frozen=True, title="Reward", description="The length.")
    list_position: ClassVar[int] = 4
    label: ClassVar[str] = "Length"
    about: ClassVar[str] = (
        "1 within the limits; below them in proportion, above them falling to 0 at twice the upper limit."
    )

    at_least: int = Field(0, ge=0, le=1_000_000, title="At least", description="Below it the reward falls to 0.")
    at_most: int | None = Field(None, ge=1, le=1_000_000, title="At most")
    """Above it the reward falls to 0; left out: no limit."""
    unit: Literal["characters", "words"] = Field("characters", title="Counted in")
    """A Chinese or Japanese character counts as a word."""

    @model_validator(mode="after")
    def _check_limits(self) -> Length:
        if self.at_most is None and not self.at_least:
            raise ValueError("the length needs at_least or at_most")
        if self.at_most is not None and self.at_most < self.at_least:
            raise ValueError("at_most is below at_least")
        return self

    def score(self, text: str, question: Question) -> float:
        text = final(text)
        size = len(text) if self.unit == "characters" else len(RougeTokens().tokenize(text))
        if size < self.at_least:
            return size / self.at_least
        if self.at_most is not None and size > self.at_most:
            return max(0.0, 2 - size / self.at_most)
        return 1.0
