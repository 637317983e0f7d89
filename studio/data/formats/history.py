"""The turns before the last question, from a column such as `history`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from studio.data.formats import HISTORY, ReportProblem, Row, without
from studio.data.formats.fields import SYSTEM, system_of
from studio.data.formats.messages import is_turn, put_first, turns_of
from studio.data.roles import role_order_problem

QUESTIONS = (
    "human", "user", "question", "query", "prompt", "q", "input", "instruction", "Human", "User", "Question", "问",
    "用户", "问题"
)  # fmt: skip
ANSWERS = ("assistant", "gpt", "bot", "answer", "response", "completion", "a", "output", "model", "chatbot", "reply",
           "Assistant", "MOSS", "Answer", "答", "助手", "回答")  # fmt: skip
Turn = dict[str, Any]


@lru_cache(maxsize=4096)
def pair_keys(columns: tuple[str, ...]) -> tuple[str, str] | None:
    """The keys of the question and of the answer among those of an object; None where it is no pair."""
    asked = next((name for name in QUESTIONS if name in columns), None)
    answered = next((name for name in ANSWERS if name in columns), None)
    return (asked, answered) if asked and answered else None


def turns_before(row: Row, report: ReportProblem, question: str | None) -> list[Turn] | None:
    """The system turn and the history of a row that asks this question; None for a reported fault."""
    system = system_of(row, report)
    before = None if system is None else history_in(row, report, question)
    return before if before is None or not system else [{"role": "system", "content": system}, *before]


def history_in(row: Row, report: ReportProblem, question: str | None) -> list[Turn] | None:
    """The turns in a column of HISTORY, as `history_of`; [] for a row without one."""
    name = next((name for name in HISTORY if row.get(name)), None)
    return history_of(row[name], report, name, question) if name else []


def history_of(
    value: Any, report: ReportProblem, name: str = "history", question: str | None = None
) -> list[Turn] | None:
    """The turns of pairs, of [{"user", "assistant"}, …], of messages or of texts in turn; None for a reported fault.

    question: what is asked behind it; a history that ends with it too holds it once.
    """
    turns = _turns(value, report, name)
    if turns and question and turns[-1]["role"] == "user" and turns[-1]["content"].strip() == question.strip():
        turns.pop()
    if turns and (wrong := role_order_problem((*(turn["role"] for turn in turns), "user", "assistant"))):
        n = min(wrong[1], len(turns) - 1)
        report(wrong[0], f"{name}[{n}]", turns[n]["content"], wrong[2])
    return turns


def _turns(value: Any, report: ReportProblem, name: str) -> list[Turn] | None:
    if value is None or value == "" or value == []:
        return []
    if not isinstance(value, list):
        return _refused(report, name, value)
    if all(map(is_turn, value)):
        return turns_of(value, report, name)
    if all(isinstance(said, str) for said in value) and len(value) % 2 == 0:
        value = [value[n : n + 2] for n in range(0, len(value), 2)]
    turns: list[Turn] = []
    for n, pair in enumerate(value):
        pair_turns = _pair(pair, report, f"{name}[{n}]")
        if pair_turns is None:
            return None
        turns += pair_turns
    return turns_of(turns, report, name) if any(len(turn) > 2 for turn in turns) else turns


def _pair(pair: Any, report: ReportProblem, where: str) -> list[Turn] | None:
    if isinstance(pair, dict):
        if keys := pair_keys(tuple(pair)):
            return pair_of(pair, keys, report, where)
    elif isinstance(pair, (list, tuple)) and len(pair) == 2:
        return pair_of(pair, (0, 1), report, where)
    return _refused(report, where, pair)


def pair_of(pair: Any, keys: tuple[Any, Any], report: ReportProblem, where: str) -> list[Turn] | None:
    """A question and its answer as two turns; None, and reported, where one of them is no text."""
    turns: list[Turn] = []
    if isinstance(pair, dict):
        system = system_of(pair, report)
        if system is None:
            return None
        put_first(system, turns)
    for key, role in zip(keys, ("user", "assistant"), strict=True):
        content = pair[key]
        if key == "input" and isinstance(pair.get("instruction"), str):
            content = "\n".join(filter(None, [pair["instruction"], content]))
        if not isinstance(content, str) or not content.strip():
            field = f"{where}[{key}]" if isinstance(key, int) else f"{where}.{key}"
            return report(
                "empty_field" if content is None or isinstance(content, str) else "wrong_type", field, content
            )
        turns.append({"role": role, "content": content})
    if isinstance(pair, dict) and len(pair) > 2:  # reasoning, and whether the answer is learnt
        turns[-1] = without(pair, *keys, *SYSTEM, "instruction") | turns[-1]
    return turns


def _refused(report: ReportProblem, where: str, value: Any) -> None:
    reason = "The history must be a list of [question, answer] pairs, or of messages with role and content."
    report("wrong_type", where, value, reason)
