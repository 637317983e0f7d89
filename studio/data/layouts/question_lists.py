"""Questions and answers in two lists, as in CoQA: {"story", "questions": ["…"], "answers": ["…"]}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.fields import with_context

TITLE = "questions and answers in two lists"
PAIRS = (("questions", "answers"), ("prompts", "responses"), ("queries", "answers"), ("inputs", "outputs"))
KEYS = frozenset(questions for questions, _ in PAIRS)


def match(row: Row) -> tuple[str, str] | None:
    """The columns of questions and answers, which hold as many texts."""
    for questions, answers in PAIRS:
        asked, answered = row.get(questions), _texts(row.get(answers))
        if not isinstance(asked, list) or not isinstance(answered, list) or len(asked) != len(answered) or not asked:
            continue
        if all(isinstance(text, str) for text in (*asked, *answered)):
            return questions, answers
    return None


def _texts(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    texts = next((value[key] for key in ("input_text", "texts", "text") if isinstance(value.get(key), list)), None)
    if texts is None:
        return value
    return [text[0] if isinstance(text, list) and text else text for text in texts]  # the first of several


def rewrite(row: Row, columns: tuple[str, str], report: ReportProblem) -> Row | None:
    questions, answers = columns
    turns = []
    for asked, answered in zip(row[questions], _texts(row[answers]), strict=True):
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    turns[0]["content"] = with_context(turns[0]["content"], row, questions)
    return without(row, questions, answers) | {"messages": turns}
