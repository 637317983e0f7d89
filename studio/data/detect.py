"""Which format a file's rows have, told from their content, with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any

from studio.data.formats import as_row, formats
from studio.data.layouts import layout_of, rewritten
from studio.data.mapping import PARTS
from studio.errors import DataError

LOOKED_AT = 200  # rows
SURE = 0.9  # share of the rows that must look like the format
HINT = "Say which column holds what, as in mapping: {{prompt: {}, answer: {}}}; or rename the columns, as in {{instruction, output}}."


@dataclass(frozen=True)
class Detection:
    """The format, and in words why it was taken; unsure: why a look at the columns is wise, else ""."""

    format: str
    reason: str
    unsure: str = ""


def detect(rows: list[Any], name: str = "the file") -> Detection:
    """The format most of the rows fit. Raises DataError when none fits.

    Each row counts for the most special format it fits, formats() being in that order; of two with as many the one that more rows fit.
    """
    looked = [row for row in map(as_row, rows[:LOOKED_AT]) if isinstance(row, dict)]
    written = [rewritten(row, lambda *_: None) for row in looked]
    fitting = [[n for n, form in formats().items() if form.fits(row)] for row in written if row is not None]
    counts, fits = Counter(names[0] for names in fitting if names), Counter(chain.from_iterable(fitting))
    if not counts:
        raise _unknown(columns_of(looked), rows, name)
    best = max(formats(), key=lambda n: (counts[n], fits[n]))
    fit = fits[best]
    others = Counter(layout.TITLE for layout in map(layout_of, looked) if layout is not None)
    way = f", written as {others.most_common(1)[0][0]}" if others else ""
    reason = f"{fit} of the first {len(looked)} rows look like {formats()[best].TITLE}{way} (columns {_listed(columns_of(looked))})."
    others = ", ".join(formats()[n].TITLE for n in counts if n != best and sum(n in names and best not in names for names in fitting))
    unsure = ""
    if fit < SURE * len(looked):
        unsure = f"Only {fit} of the first {len(looked)} rows look like {formats()[best].TITLE}."
        unsure += f" Others look like {others}: rows that do not fit are refused; a file for each layout keeps them all." if others else ""
    return Detection(best, reason, unsure)


def _unknown(columns: list[str], rows: list[Any], name: str) -> DataError:
    if not columns:
        said = "lists without names" if rows and isinstance(rows[0], list) else "no objects with named columns"
        return DataError(f"The rows of {name} are {said}.", 'Write each row as an object, such as {"instruction": "…", "output": "…"}.', name)
    message = f"The rows of {name} have none of the known layouts: {_listed(columns)}."
    if len(rows) == 1 and isinstance(rows[0], dict) and sum(isinstance(value, list) for value in rows[0].values()) > 1:
        return DataError(message, "Where these hold lists of rows, save the one to train on in a file of its own.", name)
    if len(columns) < 2 or any(len(column) > 40 or column.endswith((".", "?", "!")) for column in columns):
        return DataError(message, "Does the first line name the columns, and is the separator the right one?", name)
    texts = [key for key, value in rows[0].items() if isinstance(value, str)] if isinstance(rows[0], dict) else []
    return DataError(message, HINT.format(*((texts[0], texts[-1]) if len(texts) > 1 else ("COLUMN", "COLUMN"))), name)


def by_case(columns: list[str]) -> dict[str, str] | None:
    """A mapping where the columns have names that are known but for case and blanks around them, or None."""
    parts = {PARTS[part]: column for column in reversed(columns) if (part := column.strip().lower()) in PARTS}
    enough = {"instruction", "output"} <= set(parts) or "messages" in parts or "text" in parts
    return parts if enough and any(part != column for part, column in parts.items()) else None


def columns_of(rows: list[Any]) -> list[str]:
    """All column names of these rows, in the order in which they first stand there."""
    return list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row))


def _listed(columns: list[str]) -> str:
    shown = ", ".join(columns[:8])
    return shown + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
