"""A list of texts, question and answer in turn, as UltraChat writes them: {"data": ["…", "…"]}."""

from __future__ import annotations

from studio.data.formats import ReportProblem, Row
from studio.data.roles import MESSAGE_COLUMNS
from studio.data.tracked_row import without

TITLE = "texts in turn, as in UltraChat"
# `turns` of texts are questions alone, as in MT-bench
NAMES = ("data", *(name for name in MESSAGE_COLUMNS if name != "turns"))
KEYS = frozenset(NAMES)


def match(row: Row) -> str | None:
    """The column that holds the conversation."""
    lists = ((n, row.get(n)) for n in NAMES)
    return next(
        (n for n, v in lists if isinstance(v, list) and len(v) > 1 and all(isinstance(t, str) for t in v)), None
    )


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    name = match(row)
    turns = [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(row[name])]
    return without(row, name) | {"messages": turns}
