"""Two columns: prompt and completion, question and answer, and the other names they go by."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from studio.data.formats import HISTORY, ReportProblem, Row, named
from studio.data.formats.fields import CONTEXT, REASONING, SYSTEM, answer_of, asked_turns, repeats, text, with_context
from studio.data.formats.history import turns_before

TITLE = "Prompt and completion"
ABOUT = "One question and one answer a row, in two columns."
ORDER = 60
COLUMNS = {
    "prompt": (
        "prompt", "question", "query", "user", "input", "instruction", "q", "problem", "ask", "问", "问题", "提问"
    ),
    "answer": (
        "completion", "answer", "response", "output", "assistant", "a", "solution", "reply", "target", "答", "答案",
        "回答"
    ),
    "system": SYSTEM,
    "history": HISTORY,
    "reasoning": REASONING,
}  # fmt: skip
MORE = frozenset((*SYSTEM, *COLUMNS["history"], *REASONING, *CONTEXT, "input", "solution"))  # read beside the two


# names that say what a column is only where the other column is there too
_REASONING = frozenset(REASONING)
MORE_PROMPTS = (
    *("inputs", "conversation", "dialog", "transcript", "text", "content", "document", "article", "dialogue"),
    *("sentence", "src", "source_text", "input_text", "textInput", "docstring", "sql_prompt", "原文", "文本", "文章"),
    *("context", "source", "task"),
)
MORE_ANSWERS = (
    *("generated_solution", "generation", "generated_text", "model_response"),
    *("ideal", "expected", "expected_output", "ground_truth", "reference_answer", "correct_answer", "best_answer"),
    *("targets", "attempt", "deepseek_solution", "final_answer", "gold_answer", "canonical_solution", "summary"),
    *("highlights", "code", "sql", "translation", "tgt", "target_text", "output_text", "摘要", "译文"),
)
TARGETS = ("target", "targets", "tgt", "translation", "target_text", "译文")  # of a source
END_CHARACTERS = 24  # that may follow an answer at the end of a text which holds question and answer


def fits(row: Row) -> bool:
    return pair_of(row) is not None


@lru_cache(maxsize=4096)
def _columns(names: tuple[str, ...]) -> tuple[str | None, str | None, bool]:
    """The columns of question and answer, as far as their names tell; whether only these are read."""
    asked, answer = (named(COLUMNS, dict.fromkeys(names), part) for part in ("prompt", "answer"))
    return asked, answer, bool(asked and answer and MORE.isdisjoint({*names} - {asked}))


def pair_of(row: Row) -> tuple[str, str] | None:
    """The columns of question and answer."""
    asked, answer, *_ = _columns(tuple(row))
    solved = row.get("solution", 0)
    if answer == "answer" and (solved is None or isinstance(solved, str)):  # NuminaMath's: the answer is its last line
        answer = "solution"
    if asked and answer:
        return asked, answer
    answer = answer or _text_column(row, MORE_ANSWERS)
    question = asked or _text_column(row, (*["source"] * (answer in TARGETS), *MORE_PROMPTS))
    if asked and not answer and not _REASONING.isdisjoint(row):
        answer = _text_column(row, ("content",))  # as R1 writes it: reasoning_content and content
    if not question or not answer or (question == "text" and _ends_with(row, question, answer)):
        return None
    return question, answer


def _text_column(row: Row, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(row.get(name), str)), None)


def _ends_with(row: Row, question: str, answer: str) -> bool:
    """Whether the text is question and answer already, as a template writes them."""
    whole, end = row.get(question), row.get(answer)
    if not isinstance(end, str) or not end.strip():
        return False
    return whole.rfind(end.strip()) >= max(1, len(whole) - len(end.strip()) - END_CHARACTERS)


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    asked, answered, are_all = _columns(tuple(row))
    if are_all:
        question, content = text(row, asked, report), text(row, answered, report)
        if question is None or content is None:
            return None
        return {"messages": [*asked_turns(question, asked, report), {"role": "assistant", "content": content}]}
    asked, answered = pair_of(row) or (asked or "prompt", answered or "completion")
    question = text(row, asked, report)
    if question and asked != "input" and row.get("input"):
        more = text(row, "input", report, needed=False)
        question = more and (question if repeats(question, more) else f"{question}\n{more}")
    answer, before = answer_of(row, answered, report), turns_before(row, report, question)
    if question is None or answer is None or before is None:
        return None
    turns = asked_turns(with_context(question, row, asked), asked, report)
    known = str(row["answer"] or "") if answered == "solution" and "answer" in row else ""  # what rewards compare with
    return {"messages": [*before, *turns, answer]} | ({"reference": known} if known else {})
