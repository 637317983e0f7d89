"""What a question is asked about, in a column of its own: a passage, documents, the schema of a table."""

from __future__ import annotations

from studio.data.formats import Row
from studio.data.formats.passages import plain_text

CONTEXT = ("context", "contexts", "passage", "passages", "document", "documents", "docs", "article", "paragraph",
           "story", "support", "evidence", "background", "knowledge", "definition", "schema", "premise", "sql_context",
           "retrieved_contexts", "reference_documents", "背景", "上下文", "文档", "材料")  # fmt: skip
_CONTEXT = frozenset(CONTEXT)
REPEATED_CHARACTERS = 20  # of a text that stands in another one: a shorter one may well be a word of it


def repeats(text: str, part: str) -> bool:
    """Whether a text holds another one already, as a prompt does that was put together from other columns."""
    part = part.strip()
    return part in text if len(part) >= REPEATED_CHARACTERS else part == text.strip()


def more_text(row: Row, name: str) -> str:
    """The text of a column; "" where it holds none."""
    words = plain_text(row.get(name))
    return words if words and words.strip() else ""


def with_context(question: str, row: Row, asked: str) -> str:
    """The question behind what it is asked about. asked: the question's column."""
    if _CONTEXT.isdisjoint(row):
        return question
    before: list[str] = []
    for name in CONTEXT:
        words = more_text(row, name) if name in row and name != asked else ""
        if words and not repeats(question, words) and words not in before:
            before.append(words)
    return "\n\n".join([*before, question])
