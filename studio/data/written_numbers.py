"""Numbers of a JSON file with the digits in which they are written: an answer 3.10 is another than 3.1."""

from __future__ import annotations

import re

LOSES_DIGITS = re.compile(rb"\d\.\d*0(?![\d.])|\d[eE][+-]?\d")  # in a line that may hold such a number


class WrittenFloat(float):
    """A number whose text is not what Python writes."""

    written: str

    def __str__(self) -> str:
        return self.written


def written_float(text: str) -> float:
    """The number of a JSON text; as text it is again what stood there."""
    number = float(text)
    if repr(number) == text:
        return number
    kept = WrittenFloat(number)
    kept.written = text
    return kept
