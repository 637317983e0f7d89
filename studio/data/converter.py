"""Converter: turns a file's rows into conversations, by a format and the columns named by hand."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

from studio.data.formats import ReportProblem, alpaca, as_row, chatml_text, chosen, kto, prompt, text
from studio.data.formats.flags import ROW_FLAGS, SPLIT_COLUMNS, check_split, marked_out
from studio.data.formats.messages import plain_messages
from studio.data.formats.tool_turns import read_written_calls
from studio.data.layouts import OBJECTS, matching, multiple_choice, possible, rewritten, turns_alone, two_answers
from studio.data.layouts.comparisons import with_chosen_alone
from studio.data.mapping import LOWERED, lowered, normalized_mapping, renamer

FLAGGED = kto.LABELS | ROW_FLAGS | SPLIT_COLUMNS


@lru_cache(maxsize=4096)
def _plain(columns: tuple[str, ...]) -> bool:
    """Whether a row with these columns, and without lists or objects, needs no rewriting for its format."""
    return FLAGGED.isdisjoint(columns) and not possible(columns, texts=True)


class Converter:
    """The format's `convert`, with the renaming by hand before it."""

    def __init__(self, form: ModuleType, mapping: dict[str, Any] | None):
        self.form, self.rename = form, renamer(mapping)
        self.is_lowered = LOWERED in (mapping or {})
        self.mapped_columns = set((normalized_mapping(mapping) or {"columns": {}})["columns"].values())
        self.is_sft = form is not text and getattr(form, "STAGE", "sft") == "sft"
        self.has_texts_alone = form in (alpaca, prompt, chatml_text, kto)
        self.first_choice = (mapping or {}).get(multiple_choice.FIRST)
        self.turn_keys = getattr(form, "TURN_KEYS", None) if self.rename is self.first_choice is None else None

    def __call__(self, row: Any, report: ReportProblem) -> dict[str, Any] | None:
        """The row's conversation; None, and reported, where it cannot be trained on."""
        if self.is_lowered:
            row = lowered(row)
        row = as_row(row)
        if type(row) is dict:
            if self.turn_keys is not None:
                name = turns_alone(tuple(row))
                plain = name and FLAGGED.isdisjoint(row) and plain_messages(row[name], *self.turn_keys)
                if plain and plain[-1]["role"] == "assistant":
                    return self.form.convert(row, report, plain)
            if self.rename is None and OBJECTS.isdisjoint(map(type, row.values())) and _plain(tuple(row)):
                return self._converted(row, report)
        if isinstance(row, dict) and not FLAGGED.isdisjoint(row) and self._left_out(row, report):
            return None
        if self.rename is not None:
            row = self.rename(row)
        if self.first_choice is not None and isinstance(row, dict):
            row = row | {multiple_choice.FIRST: self.first_choice}
        if self.form is chosen and isinstance(row, dict):
            row = with_chosen_alone(row)
        row = rewritten(row, report)
        if row is None:
            return None
        if not isinstance(row, dict):
            return report("not_a_row", None, row)
        return self._converted(row, report)

    def _converted(self, row: dict[str, Any], report: ReportProblem) -> dict[str, Any] | None:
        conversation = self.form.convert(row, report)
        if conversation and self.has_texts_alone:
            read_written_calls(conversation["messages"], [], report, "messages")
        return conversation

    def _left_out(self, row: dict[str, Any], report: ReportProblem) -> bool:
        """Whether the row says itself that it is not to be learnt, which has then been reported."""
        check_split(row, self.mapped_columns, report)
        if flag := marked_out(row, self.mapped_columns):
            report("marked_out", flag, row[flag])
            return True
        if not self.is_sft or not kto.bad(row) or (label := kto.labelled(row)) in self.mapped_columns:
            return False
        if (found := matching(row)) and found[0] in (
            multiple_choice.LAYOUTS + two_answers.LAYOUTS
        ):  # its label names the right choice
            return False
        report("bad_answer", label, row[label])
        return True
