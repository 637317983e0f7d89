"""Turns that call tools, and the results that follow: calls written as words, and which result answers which call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.text import tool_calls
from studio.text.call_marks import MARK, holds_mark
from studio.text.written_calls import split_calls

Message = dict[str, Any]
RESULT_TEXT = re.compile(r"\s*<tool_response>\s*(.*?)\s*</tool_response>\s*", re.DOTALL)
DECLARED = frozenset(tool_calls.DECLARED)
ARGUMENTS = re.compile(r"(?![\w-])[^.!?]{0,30}?[({\[]\s*(?:[\"'\]})]|\w+\s*[=:])")
WORDS_OF_RESULT = "A tool's result follows, but the turn is no JSON of a call: its words are learnt as they stand."
WORDS_OF_CALL = (
    "A declared tool and its arguments stand in words that are read as no call: they are learnt as they stand."
)
RESULTS = re.compile(rf"(?:{RESULT_TEXT.pattern})+", re.DOTALL)


def declared_tools(row: Row, turns: Sequence[Any], report: ReportProblem) -> list[Any]:
    """The tools a row declares: in a column of their own, or in its system turn. [] for none."""
    if not turns and DECLARED.isdisjoint(row):
        return []
    holders = [
        ("", row),
        *((f"{n}.", turn) for n, turn in enumerate(turns) if isinstance(turn, dict) and len(turn) > 2),
    ]
    for key in tool_calls.DECLARED:
        for where, holder in holders:
            if key in holder and holder[key]:
                tools = tool_calls.tools_of(holder[key])
                if tools is None:
                    report("odd_tools", where + key, holder[key])
                return tools or []
    return []


def read_written_calls(
    messages: list[Message], tools: list[Any], report: ReportProblem, name: str, since: int = 0
) -> None:
    """Calls in the words of an answer become calls, as the template writes them; so do results behind them.

    They are all of the answer, as JSON, or stand at its end in the marks of a model. Marks around anything else are
    told, and so are calls of tools that are not declared. name: of the column, for the reports; its turns begin at
    `since`.
    """
    names = set(tool_calls.names_of(tools)) if tools else set()
    for n, message in enumerate(messages):
        where = f"{name}[{n - since}]"
        if n < since or message["role"] != "assistant" or "untrained" in message:
            continue
        content, calls = message["content"], None
        if "tool_calls" not in message and content and (tools or holds_mark(content)):
            answered = _is_answered(messages, n)
            words, calls = split_calls(content, tools, answered)
            if calls and (tools or not _is_described(messages, content)):
                message |= {"content": words, "tool_calls": calls}
                _read_written_result(messages, n + 1)
            elif calls is None:
                reason = "What stands in the marks of a call is no JSON of a call."
                report("odd_call", where, content, reason)
            elif names and calls == [] and (answered or _names_arguments(content, names)):
                report("odd_call", where, content, WORDS_OF_RESULT if answered else WORDS_OF_CALL)
        for call in message.get("tool_calls", ()) if names else ():
            if (called := call["function"]["name"]) not in names:
                reason = f"It calls {called!r}, which is none of the declared tools: {', '.join(sorted(names))[:200]}."
                report("odd_call", f"{where}.tool_calls", called, reason)


def _names_arguments(content: str, names: set[str]) -> bool:
    """Whether the name of a tool, and close behind it something like arguments, stand in the words of an answer."""
    behind = (content[at + len(name) :] for name in names if (at := content.find(name)) >= 0)
    return any(ARGUMENTS.match(words) for words in behind)


def _is_answered(messages: list[Message], n: int) -> bool:
    """Whether a tool's result stands behind a turn."""
    return n + 1 < len(messages) and (messages[n + 1]["role"] == "tool" or _written_results(messages[n + 1]) != [])


def _is_described(messages: list[Message], content: str) -> bool:
    """Whether the system prompt says in words how calls are written."""
    mark = MARK.search(content)
    return mark is not None and messages[0]["role"] == "system" and mark[0] in messages[0]["content"]


def _written_results(message: Message) -> list[str]:
    """The results that a user's turn is, as Qwen's templates write them."""
    if message["role"] != "user" or not RESULTS.fullmatch(message["content"]):
        return []
    return RESULT_TEXT.findall(message["content"])


def _read_written_result(messages: list[Message], n: int) -> None:
    """A user's turn that is nothing but results of tools becomes turns of the tool."""
    if n < len(messages) and (results := _written_results(messages[n])):
        messages[n : n + 1] = [{"role": "tool", "content": result} for result in results]


def match_results(messages: list[Message], report: ReportProblem, name: str) -> None:
    """Put results in the order of the calls that they answer; a result of no call, and a call without one, are told."""
    for n, run in _results(messages):
        calls = messages[n - 1].get("tool_calls") or []
        wanted = [call["id"] for call in calls if "id" in call]
        if not wanted or len(wanted) < len(calls) or not all("tool_call_id" in message for message in run):
            continue
        ids = [str(message["tool_call_id"]) for message in run]
        if len(ids) == len(set(ids)) and sorted(ids) == sorted(wanted):
            messages[n : n + len(run)] = sorted(run, key=lambda message: wanted.index(str(message["tool_call_id"])))
            continue
        for place, message in enumerate(run):
            field = f"{name}[{n + place}].tool_call_id"
            if ids[place] not in wanted:
                reason = f"The result is of no call before it: those are {', '.join(wanted)[:200]}."
                report("odd_result", field, message["tool_call_id"], reason)
            elif ids[place] in ids[:place]:
                report("odd_result", field, message["tool_call_id"], "The call has a result already.")
        if lacking := [one for one in wanted if one not in ids]:
            report("odd_result", f"{name}[{n - 1}].tool_calls", lacking, "No result follows for these calls.")


def _results(messages: list[Message]) -> Iterator[tuple[int, list[Message]]]:
    """(index of its first, the results) of each run of tools' turns behind an answer."""
    for n in range(1, len(messages)):
        if messages[n]["role"] == "tool" and messages[n - 1]["role"] == "assistant":
            end = next((m for m in range(n, len(messages)) if messages[m]["role"] != "tool"), len(messages))
            yield n, messages[n:end]
