"""Preference data: a prompt with a chosen and a rejected answer, as columns, as messages, or the ShareGPT way.

Stages such as dpo learn from both answers (studio/stages/); format: chosen learns the chosen one alone, as sft does.
"""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, named
from studio.data.formats.fields import SYSTEM, asked_turns, repeats, system_of, text, with_context
from studio.data.formats.messages import put_first, turns_of
from studio.data.formats.tool_turns import declared_tools, match_results, read_written_calls
from studio.data.roles import MESSAGE_COLUMNS, ROLE_KEYS, display_text
from studio.text.tool_calls import DECLARED

TITLE = "Preference pairs"
ABOUT = "A prompt with a chosen and a rejected answer (DPO, ORPO, reward models)."
ORDER = 10
STAGE = "preference"
EXAMPLES = "pairs"
COLUMNS = {
    "prompt": ("prompt", "question", "instruction", "query", "input", "trajectory", *MESSAGE_COLUMNS),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "system": SYSTEM,
    "tools": DECLARED,
}
LEAKED_CHARACTERS = 20  # of a question that an answer begins with: shorter ones may well be repeated
SCORES = (
    *(("score_chosen", "score_rejected"), ("chosen_score", "rejected_score")),
    *(("chosen_rating", "rejected_rating"), ("chosen-rating", "rejected-rating")),
)


def fits(row: Row) -> bool:
    return "chosen" in row and "rejected" in row


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    before = prompt_turns(row, report)
    if before is None:
        return None
    chosen, rejected = _answer(row, "chosen", report), _answer(row, "rejected", report)
    if chosen is None or rejected is None:
        return None
    if len(chosen) > 1 and not before:  # the whole conversation stands in both
        before, rejected = chosen[:-1], rejected[-1:]
        chosen = chosen[-1:]
    if not before:
        return report("missing_field", "prompt", list(row))
    tools = declared_tools(row, [], report)
    read_written_calls(before, tools, report, "prompt")
    match_results(before, report, "prompt")
    sides = {"chosen": chosen[-1], "rejected": rejected[-1]}
    for name, answer in sides.items():
        read_written_calls([*before, answer], tools, report, name, len(before))
    if sides["chosen"] == sides["rejected"]:
        report("same_answers", "rejected", display_text(rejected[-1]))
    _check_sides(row, before[-1]["content"], sides, report)
    more = {key: value for key, value in rejected[-1].items() if key not in ("role", "content")}
    conversation = {"messages": [*before, chosen[-1]], "rejected": rejected[-1]["content"]}
    return conversation | ({"rejected_more": more} if more else {}) | ({"tools": tools} if tools else {})


def begins_with(answer: str, question: str) -> bool:
    """Whether an answer begins with its question, one of some length."""
    return len(question.strip()) >= LEAKED_CHARACTERS and answer.lstrip().startswith(question.strip())


def _check_sides(row: Row, question: str, sides: dict[str, dict[str, Any]], report: ReportProblem) -> None:
    """Report an answer that begins with its question, and scores that call the rejected answer the better one."""
    for name, answer in sides.items():
        if begins_with(answer["content"], question):
            report("prompt_in_side", name, answer["content"])
    for better, worse in SCORES:
        if better not in row:
            continue
        scores = [row.get(better), row.get(worse)]
        if all(isinstance(score, (int, float)) for score in scores) and scores[0] < scores[1]:
            report("swapped_sides", worse, f"{better} {scores[0]}, {worse} {scores[1]}")


def prompt_turns(row: Row, report: ReportProblem) -> list[dict[str, Any]] | None:
    """The turns before the answer; [] where both answers begin with them."""
    name = named(COLUMNS, row, "prompt")
    if name is None:
        return []
    system = system_of(row, report)
    if system is None:
        return None
    if isinstance(row[name], list):
        turns = turns_of(row[name], report, name)
    else:
        question = text(row, name, report)
        more = text(row, "input", report, needed=False) if question and name != "input" and row.get("input") else ""
        if question is None or more is None:
            return None
        question = f"{question}\n{more}" if more and not repeats(question, more) else question
        turns = asked_turns(with_context(question, row, name), name, report)
    if turns is not None:
        put_first(system, turns)
    return turns


def _answer(row: Row, name: str, report: ReportProblem) -> list[dict[str, Any]] | None:
    value = row.get(name)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = [turn if any(key in turn for key in ROLE_KEYS) else {"role": "assistant", **turn} for turn in value]
        return turns_of(value, report, name)
    content = text(row, name, report)
    return None if content is None else [{"role": "assistant", "content": content}]
