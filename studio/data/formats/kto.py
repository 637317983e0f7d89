"""KTO: a prompt, one answer, and a label that says whether the answer is good."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, alpaca, named
from studio.data.formats import prompt as two_columns
from studio.data.formats.fields import kind
from studio.data.formats.messages import gather, list_column
from studio.data.formats.preference import begins_with
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "KTO (answers with a verdict)"
ABOUT = "A prompt, an answer, and a label: true for a good answer, false for a bad one."
ORDER = 12
STAGE = "preference"
EXAMPLES = "verdicts"
NUMBERED = (
    *("label", "kto_tag", "desirable", "is_desirable", "thumbs_up", "thumbs", "is_good", "good", "liked", "is_liked"),
    *("approved", "is_approved", "is_accepted", "is_chosen", "is_preferred", "is_correct", "correct", "helpful"),
    *("is_helpful", "acceptable", "is_safe", "is_response_safe", "标签", "是否正确", "是否采纳", "是否合格"),
)  # columns whose 1 and 0 are a verdict; in the others such a number may be a mark out of five
COLUMNS = {
    **two_columns.COLUMNS,
    "label": (*NUMBERED, "verdict", "feedback", "rating", "accepted", "preferred", "评价", "反馈"),
    "messages": MESSAGE_COLUMNS,
}
LABELS = frozenset(COLUMNS["label"])
GOOD = (
    "true good desirable chosen accepted approved liked like up thumbs_up thumbsup thumbs-up positive correct yes y "
    "right pass passed helpful 👍 ✅ ✓ ✔ 好 好评 是 对 正确 赞 喜欢 满意 合格 通过 采纳"
)
BAD = (
    "false bad undesirable rejected declined disapproved disliked dislike down thumbs_down thumbsdown thumbs-down "
    "negative incorrect no n wrong fail failed unhelpful 👎 ❌ ✗ ✘ 坏 差 差评 否 错 错误 不正确 踩 不喜欢 不满意 "
    "不合格 不通过 未采纳"
)
VERDICTS = dict.fromkeys(GOOD.split(), True) | dict.fromkeys(BAD.split(), False)
NUMBERS = {1: True, 0: False, -1: False} | {f"{n}{end}": n > 0 for n in (1, 0, -1) for end in ("", ".0")}


def fits(row: Row) -> bool:
    return (two_columns.fits(row) or list_column(row) is not None) and labelled(row) is not None


def labelled(row: Row) -> str | None:
    """The column with a verdict."""
    return next((name for name in COLUMNS["label"] if _verdict(name, row.get(name)) is not None), None)


def _verdict(name: str, value: Any) -> bool | None:
    """Whether a label calls the answer good; None for what is no verdict."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        value = value.strip().lower()
        if value in VERDICTS:
            return VERDICTS[value]
    elif not isinstance(value, (int, float)):
        return None
    return NUMBERS.get(value) if name in NUMBERED else None


def bad(row: Row) -> bool:
    """Whether the row holds an answer that its label calls bad: it must not be learnt, whatever format reads it."""
    name = labelled(row)
    return name is not None and not _verdict(name, row[name]) and fits(row) and "text" not in row


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    name = labelled(row) or named(COLUMNS, row, "label") or "label"
    value = row.get(name)
    verdict = _verdict(name, value)
    if verdict is None:
        reason = f"The label must be true or false, but it is {kind(value)}."
        return report("wrong_type" if name in row else "missing_field", name, value, reason)
    if list_column(row):
        conversation = gather(row, report)
    else:
        conversation = (alpaca if alpaca.fits(row) else two_columns).convert(row, report)
    if conversation is None:
        return None
    answer, question = conversation["messages"][-1]["content"], conversation["messages"][-2:-1]
    if question and begins_with(answer, question[0]["content"]):
        report("prompt_in_side", "completion" if "completion" in row else None, answer)
    return conversation | {"label": verdict}
