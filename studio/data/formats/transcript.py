"""Transcripts: texts whose marks say who speaks, as turns. Never detected: the order says format: transcript."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, named, text
from studio.data.formats.fields import text as text_of
from studio.data.formats.messages import gather
from studio.text.marks import turns_in

TITLE = "Transcripts"
ABOUT = "Texts in which marks say who speaks (Human: … Assistant: …, [INST] … [/INST]): the answers are learnt."
ORDER = 1005
COLUMNS = text.COLUMNS


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    name = named(COLUMNS, row, "text") or "text"
    content = text_of(row, name, report)
    if content is None:
        return None
    turns = turns_in(content)
    if turns is None:
        return report("no_assistant", name, content, "No marks in the text say which of its words are an answer.")
    if not turns[-1]["content"]:  # the mark of an answer that is not there
        turns.pop()
    return gather({"messages": turns}, report)
