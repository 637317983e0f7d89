"""Converter: turns a file's rows into conversations, by a format and the columns named by hand."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

from studio.data.formats import NESTED, ReportProblem, as_row, kto, text
from studio.data.layouts import OBJECTS, possible, rewritten
from studio.data.mapping import normalized_mapping, renamer


@lru_cache(maxsize=4096)
def _plain(columns: tuple[str, ...]) -> bool:
    """Whether a row with these columns, and without lists or objects, needs no rewriting for its format."""
    return kto.LABELS.isdisjoint(columns) and NESTED.isdisjoint(columns) and not possible(columns, texts=True)


class Converter:
    """The format's `convert`, with the renaming by hand before it."""

    def __init__(self, form: ModuleType, mapping: dict[str, Any] | None):
        self.form, self.rename = form, renamer(mapping)
        self.mapped_columns = set((normalized_mapping(mapping) or {"columns": {}})["columns"].values())
        self.is_sft = form is not text and getattr(form, "STAGE", "sft") == "sft"

    def __call__(self, row: Any, report: ReportProblem) -> dict[str, Any] | None:
        """The row's conversation; None, and reported, where it cannot be trained on."""
        if (
            type(row) is dict
            and self.rename is None
            and _plain(tuple(row))
            and OBJECTS.isdisjoint(map(type, row.values()))
        ):
            return self.form.convert(row, report)
        row = as_row(row)
        if (
            self.is_sft
            and isinstance(row, dict)
            and not kto.LABELS.isdisjoint(row)
            and kto.bad(row)
            and (label := kto.labelled(row)) not in self.mapped_columns
        ):
            report("bad_answer", label, row[label])
            return None
        if self.rename is not None:
            row = self.rename(row)
        row = rewritten(row, report)
        if row is None:
            return None
        if not isinstance(row, dict):
            report("not_a_row", None, row)
            return None
        return self.form.convert(row, report)
