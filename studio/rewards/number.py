"""The last number of the answer is that of the data: arithmetic and word problems."""

from __future__ import annotations

import math
import re
from typing import ClassVar, Literal

from pydantic import Field

from studio.evaluation.questions import Question
from studio.evaluation.scores import final
from studio.knob import OPTIMISATION
from studio.reward import Reward

BETWEEN_THOUSANDS = ",，'’\u00a0\u2009\u202f"
# a hyphen behind a digit or a letter is no sign: 3-5, 2024-01-05
NUMBER = re.compile(
    rf"((?:(?<![0-9A-Za-z)])[-−])?(?:\d{{1,3}}(?:[{BETWEEN_THOUSANDS}]\d{{3}})+(?!\d)|\d+)"
    r"(?:[.．]\d+)?(?:[eE][-+]?\d+)?)\s?([万萬亿億]?)"
)
TIMES = {"": 1, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}


class Number(Reward):
    """As is usual for GSM8K, whose answers end in "#### 72"."""

    name: Literal["number"] = Field("number", frozen=True, title="Reward", description="The number at the end.")
    list_position: ClassVar[int] = 1
    label: ClassVar[str] = "The number at the end"
    about: ClassVar[str] = "1 where the last number of the answer is the last number of the row's own answer, else 0."
    needs_reference: ClassVar[bool] = True

    tolerance: float = Field(1e-6, ge=0, le=1, title="Tolerance", json_schema_extra=OPTIMISATION)
    """By which share of the right number the answer may be off."""

    def compares_with(self, reference: str) -> bool:
        return last_number(reference) is not None

    def score(self, text: str, question: Question) -> float | None:
        right, found = last_number(question.reference), last_number(final(text))
        if right is None:
            return None
        return float(found is not None and math.isclose(found, right, rel_tol=self.tolerance, abs_tol=1e-12))


def last_number(text: str) -> float | None:
    """The last number in a text: 1,234.5, −3 and 3万 too; None where there is none."""
    numbers = NUMBER.findall(text)
    if not numbers:
        return None
    digits, unit = numbers[-1]
    plain = re.sub(f"[{BETWEEN_THOUSANDS}]", "", digits).replace("−", "-").replace("．", ".")
    return float(plain) * TIMES[unit]
