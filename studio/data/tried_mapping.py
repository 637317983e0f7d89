"""Whether a mapping makes rows usable, tried on the first of them."""

from __future__ import annotations

from typing import Any

from studio.data.converter import Converter
from studio.data.formats import Row, formats
from studio.data.mapping import format_of
from studio.data.problem import KINDS


def works(mapping: dict[str, str], rows: list[Row]) -> bool:
    """Whether at least 9 of 10 of the first rows are usable with the mapping."""
    return converted(Converter(formats()[format_of(mapping) or "alpaca"], mapping), rows)


def converted(convert: Converter, rows: list[Row]) -> bool:
    """Whether at least 9 of 10 of the first rows are usable with the converter."""
    refused: list[str] = []

    def report(kind: str, *_: Any) -> None:
        if KINDS[kind].severity == "refused":
            refused.append(kind)

    usable = 0
    for row in rows[:50]:
        refused.clear()
        usable += convert(row, report) is not None and not refused
    return usable * 10 >= 9 * len(rows[:50]) and usable > 0


def prompts_hint(rows: list[Row]) -> str:
    """That rows without answers can be learnt from by a model that answers itself; "" where they cannot."""
    usable = converted(Converter(formats()["prompts"], None), rows)
    return " Stage grpo, whose model answers itself, takes the rows as they are." if usable else ""
