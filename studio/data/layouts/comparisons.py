"""Preference data under other names: preferred_output, chosen_messages, OpenAI's input with messages."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.history import history_of
from studio.data.formats.messages import are_turns, list_column, turns_of
from studio.data.layouts import Layout
from studio.data.roles import MESSAGE_COLUMNS

CHOSEN = ("chosen", "preferred_output", "chosen_messages", "chosen_response", "response_chosen", "answer_chosen",
          "preferred", "preferred_response", "accepted", "accepted_response", "response_j", "chosen_answer",
          "chosen_output", "chosen_message", "preferred_answer", "preferred_completion",
          "chosen_completion")  # fmt: skip
REJECTED = ("rejected", "non_preferred_output", "rejected_messages", "rejected_response", "response_rejected",
            "answer_rejected", "non_preferred", "dispreferred", "rejected_output", "non_preferred_response",
            "response_k", "rejected_answer", "rejected_message", "rejected_completion", "dispreferred_response",
            "non_preferred_answer", "dispreferred_completion")  # fmt: skip
PAIRS = {"loser": "winner", "negative": "positive", "worse": "better", "y_l": "y_w", "response_l": "response_w",
         "bad": "good", "bad_answer": "good_answer", "bad_response": "good_response", "worst": "best",
         "worse_response": "better_response", "worse_answer": "better_answer", "losing_response": "winning_response",
         "negative_response": "positive_response"}  # fmt: skip
ANSWERS = ("response", "output", "answer", "completion")
KEYS = frozenset(REJECTED) | {"chosen", *PAIRS}
ASKED = ("prompt", "question", "instruction", "query", "input")


@lru_cache(maxsize=4096)
def _names(columns: tuple[str, ...]) -> tuple[list[tuple[str, str]], str | None, str | None]:
    """(pairs of words that mean this only side by side, the chosen, the rejected) among these columns."""
    pairs = [(better, worse) for worse, better in PAIRS.items() if worse in columns and better in columns]
    return pairs, *(next((n for n in names if n in columns), None) for names in (CHOSEN, REJECTED))


def _columns(row: Row) -> tuple[str | None, str | None]:
    """The columns of the chosen and the rejected answer, each None where there is none."""
    pairs, chosen_name, rejected_name = _names(tuple(row))
    for better, worse in pairs:
        if row.get(worse) and row.get(better):
            return better, worse
    if chosen_name is None and rejected_name is not None:  # ms-swift's: the good answer is in its usual column
        chosen_name = next((n for n in ANSWERS if n in row), None) or list_column(row)
    return chosen_name, rejected_name


def with_chosen_alone(row: Row) -> Row:
    """The row with its chosen side in place of the rejected one, for which it then need not be written otherwise."""
    chosen_name, rejected_name = _columns(row)
    return row if chosen_name is None else row | {rejected_name or "rejected": row[chosen_name]}


def match(row: Row) -> tuple[str, str] | None:
    """The columns of the chosen and the rejected answer."""
    chosen_name, rejected_name = _columns(row)
    if chosen_name is None or rejected_name is None or not row[rejected_name]:
        return None
    if rejected_name in PAIRS:
        return chosen_name, rejected_name
    inside = isinstance(row.get("input"), dict) and isinstance(row["input"].get("messages"), list)
    usual = (chosen_name, rejected_name) == ("chosen", "rejected") and not inside and not row.get("history")
    return None if usual and not _is_whole(row[chosen_name]) else (chosen_name, rejected_name)


def _is_whole(value: Any) -> bool:
    """Whether it is a conversation of several turns, or has turns in parts."""
    value = _inside(value)
    return are_turns(value) and (len(value) > 1 or isinstance(value[0].get("content"), list))


def rewrite(row: Row, columns: tuple[str, str], report: ReportProblem) -> Row | None:
    chosen_name, rejected_name = columns
    rest = without(row, chosen_name, rejected_name, "history")
    chosen, rejected = row[chosen_name], row[rejected_name]
    if chosen_name in MESSAGE_COLUMNS and not _is_whole(rejected):  # the conversation ends with the good answer
        chosen, rest = chosen[-1:], rest | {"prompt": chosen[:-1]}
    request = rest.get("input")
    if isinstance(request, dict) and isinstance(request.get("messages"), list):
        rest = without(rest, "input") | {"prompt": request["messages"]}
        rest |= {"tools": request["tools"]} if request.get("tools") else {}
    if row.get("history"):
        name = next((n for n in ASKED if isinstance(row.get(n), str)), None)
        before = history_of(row["history"], report, question=name and row[name])
        if before is None or name is None:
            return None
        rest = without(rest, name) | {"prompt": [*before, {"role": "user", "content": row[name]}]}
    return _parted(rest, _inside(chosen), _inside(rejected), report)


def _parted(rest: Row, chosen: Any, rejected: Any, report: ReportProblem) -> Row | None:
    """The turns that both conversations begin with are the prompt; what follows must be one answer each."""
    if are_turns(chosen) and len(chosen) > 1 and isinstance(rejected, str) and rejected.strip():
        rejected = [*chosen[:-1], {"role": "assistant", "content": rejected}]
    if not are_turns(chosen) or not are_turns(rejected):
        return rest | {"chosen": chosen, "rejected": rejected}
    chosen_turns = turns_of(chosen, report, "chosen")
    rejected_turns = turns_of(rejected, report, "rejected")
    if chosen_turns is None or rejected_turns is None:
        return None
    if chosen_turns[-1]["role"] != "assistant":
        reason = "The conversation must end with an answer of the assistant."
        return report("wrong_type", f"chosen[{len(chosen) - 1}]", chosen[-1], reason)
    differing = (n for n, (a, b) in enumerate(zip(chosen_turns, rejected_turns)) if a != b)
    shared = next(differing, min(len(chosen_turns), len(rejected_turns)) - 1)
    one_answer = len(chosen_turns) == len(rejected_turns) == shared + 1
    if not one_answer or rejected_turns[shared]["role"] != "assistant":
        reason = f"The two conversations must be the same up to one last answer. They part at turn {shared + 1}."
        index = min(shared, len(rejected_turns) - 1)
        return report("wrong_type", f"rejected[{index}]", rejected[index], reason)
    prompt = rest.get("prompt")
    turns: list[Any] = prompt if isinstance(prompt, list) else []
    if isinstance(prompt, str) and prompt.strip() and chosen_turns[0]["role"] == "assistant":
        turns = [{"role": "user", "content": prompt}]
    begun = turns_of(turns, report, "prompt") if turns else []
    if begun is None:
        return None
    repeated = chosen_turns[: len(begun)] == begun  # the conversation holds its prompt
    turns = [*([] if repeated else turns), *chosen_turns[:shared]]
    return rest | {"prompt": turns, "chosen": chosen_turns[shared:], "rejected": rejected_turns[shared:]}


def _inside(value: Any) -> Any:
    """The messages of {"messages": […]}."""
    return value["messages"] if isinstance(value, dict) and isinstance(value.get("messages"), list) else value


LAYOUTS = (Layout("comparisons under other names", match, rewrite, KEYS, texts=True),)
