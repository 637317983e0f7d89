"""KTO: a prompt, one answer, and a label that says whether the answer is good."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, alpaca, named
from studio.data.formats import prompt as two_columns
from studio.data.formats.fields import kind
from studio.data.formats.messages import MESSAGE_COLUMNS, gather

TITLE = "KTO (answers with a verdict)"
ABOUT = "A prompt, an answer, and a label: true for a good answer, false for a bad one."
ORDER = 12
STAGE = "preference"
COLUMNS = {**two_columns.COLUMNS, "label": ("label", "kto_tag"), "messages": MESSAGE_COLUMNS}
LABELS = frozenset(COLUMNS["label"])
VERDICTS = {
    True: True, False: False, "true": True, "false": False, "1": True, "0": False, "True": True, "False": False,
    "desirable": True, "undesirable": False, "good": True, "bad": False, "chosen": True, "rejected": False,
}  # fmt: skip


def fits(row: Row) -> bool:
    answers = two_columns.fits(row) or any(isinstance(row.get(n), list) for n in MESSAGE_COLUMNS)
    return answers and labelled(row) is not None


def labelled(row: Row) -> str | None:
    """The column with a verdict."""
    name = named(COLUMNS, row, "label")
    value = dict.get(row, name)  # looked at only: whether a format uses the column is told by what else it asks for
    return name if isinstance(value, (bool, int, str)) and value in VERDICTS else None


def bad(row: Row) -> bool:
    """Whether the row holds an answer that its label calls bad: it must not be learnt, whatever format reads it."""
    name = labelled(row)
    return name is not None and not VERDICTS[dict.get(row, name)] and "text" not in row


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    name = named(COLUMNS, row, "label") or "label"
    verdict = row.get(name)
    if not isinstance(verdict, (bool, int, str)) or verdict not in VERDICTS:
        report(
            "wrong_type" if name in row else "missing_field",
            name,
            verdict,
            f"The label must be true or false, but it is {kind(verdict)}.",
        )
        return None
    turns = next((row[n] for n in MESSAGE_COLUMNS if isinstance(row.get(n), list)), None)
    if turns is not None:
        share = bool(turns) and isinstance(turns[0], dict) and "from" in turns[0]
        conversation = gather(row, report, *(("from", "value") if share else ("role", "content")))
    else:
        conversation = (alpaca if alpaca.fits(row) else two_columns).convert(row, report)
    return None if conversation is None else conversation | {"label": VERDICTS[verdict]}
