"""The format of a file's rows, from their content, with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any

from studio.data.column_names import NAMED_PARTS, columns_of, listed
from studio.data.formats import Row, as_row, fitting, formats
from studio.data.layouts import matching, rewritten
from studio.data.mapping import BLANK
from studio.data.turn_hints import turn_keys
from studio.data.unknown_layout import unknown_layout

REJECTED = frozenset(("rejected", "non_preferred_output", "rejected_response", "rejected_messages"))
SAMPLE_ROWS = 200  # rows
FEW_SHARE = 0.05  # share of the rows below which none of them counts
CONFIDENT_SHARE = 0.9  # share of the rows that must look like the format


@dataclass(frozen=True)
class Detection:
    """The format, and the reason in words. unsure: why the user should check the columns, or ""."""

    format: str
    reason: str
    unsure: str = ""


def detect(rows: list[Any], name: str = "the file", more: Row | None = None) -> Detection:
    """The format most of the rows fit. Raises DataError when none fits.

    Each row counts for the most specific format it fits (the order of formats()); a tie goes to the one more rows fit.
    more: what the layouts are to know beside the rows' own columns.
    """
    sampled = [row for row in map(as_row, rows[:SAMPLE_ROWS]) if isinstance(row, dict)]
    written = [rewritten(row | more if more else row, lambda *_: None) for row in sampled]
    fitting_rows = [fitting(row) for row in written if row is not None]
    counts, fits = Counter(names[0] for names in fitting_rows if names), Counter(chain.from_iterable(fitting_rows))
    if not counts and None in written:  # of a known layout, and faulty: each row's problem is reported
        best = "preference" if any("chosen" in row or not REJECTED.isdisjoint(row) for row in sampled) else "chatml"
        return Detection(best, f"The first {len(sampled)} rows look like {formats()[best].TITLE}.")
    if not counts or (counts.total() < FEW_SHARE * len(sampled) and None not in written):
        raise unknown_layout(columns_of(sampled), rows, name)
    best = max(formats(), key=lambda n: (counts[n], fits[n]))
    fit = fits[best] + written.count(None)  # of a known layout, and faulty: told as problems
    title = formats()[best].TITLE
    layouts = Counter(found[0].TITLE for found in map(matching, sampled) if found)
    layout = f", written as {layouts.most_common(1)[0][0]}" if layouts else ""
    columns = listed(columns_of(sampled))
    reason = f"{fit} of the first {len(sampled)} rows look like {title}{layout} (columns {columns})."
    if fit >= CONFIDENT_SHARE * len(sampled):
        return Detection(best, reason)
    unsure = f"Only {fit} of the first {len(sampled)} rows look like {title}."
    other_names = [n for n in counts if n != best and any(n in names and best not in names for names in fitting_rows)]
    if other_names:
        others = ", ".join(formats()[n].TITLE for n in other_names)
        unsure += (
            f" Others look like {others}: rows that do not fit are refused; a file for each layout keeps them all."
        )
    return Detection(best, reason, unsure)


def match_names(columns: list[str], rows: list[Any]) -> dict[str, str] | None:
    """A mapping where the columns have names that are known but for case and blanks, or in Chinese; or None."""
    names = {column: column.strip(BLANK).lower() for column in reversed(columns)}
    parts = {part: c for c, name in names.items() if (part := NAMED_PARTS.get(name))}
    if "instruction" not in parts and "input" in parts:
        parts["instruction"] = parts.pop("input")
    if "messages" in parts and (keys := turn_keys([row for row in rows if isinstance(row, dict)], parts["messages"])):
        parts |= dict(zip(("role", "content"), keys))
    enough = {"instruction", "output"} <= set(parts) or "messages" in parts or "text" in parts
    return parts if enough and any(part != column for part, column in parts.items()) else None
