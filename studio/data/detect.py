"""Which format a file's rows have, told from their content, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studio.data.formats import as_row, formats
from studio.errors import DataError

LOOKED_AT = 200  # rows
SURE = 0.5  # share of the rows that must look like the format


@dataclass(frozen=True)
class Detection:
    """The format, and in words why it was taken; unsure: why a look at the columns is wise, else ""."""

    format: str
    reason: str
    unsure: str = ""


def detect(rows: list[Any], name: str = "the file") -> Detection:
    """The format most of the rows fit, the more special one first. Raises DataError when none fits."""
    looked = [row for row in map(as_row, rows[:LOOKED_AT]) if isinstance(row, dict)]
    shares = {n: sum(map(f.fits, looked)) / max(1, len(looked)) for n, f in formats().items()}
    best = max(shares, key=lambda n: shares[n], default="")
    columns = columns_of(looked)
    if not looked or shares[best] == 0:
        raise DataError(
            f"The rows of {name} have none of the known layouts: {_listed(columns) or 'they have no named columns'}.",
            "Say which column holds what, as in mapping: {prompt: COLUMN, answer: COLUMN}; "
            "or rename the columns, as in {instruction, output}, {messages} or {prompt, completion}.",
            name,
        )
    fitting = round(shares[best] * len(looked))
    reason = f"{fitting} of the first {len(looked)} rows look like {formats()[best].TITLE} (columns {_listed(columns)})."
    unsure = ""
    if shares[best] < SURE:
        unsure = f"Only {fitting} of the first {len(looked)} rows look like {formats()[best].TITLE}."
    return Detection(best, reason, unsure)


def columns_of(rows: list[Any]) -> list[str]:
    """All column names of these rows, in the order in which they first stand there."""
    return list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row))


def _listed(columns: list[str]) -> str:
    shown = ", ".join(columns[:8])
    return shown + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
