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
            results = _written_results(messages[n + 1 : n + 2])
            answered = bool(results) or any(following["role"] == "tool" for following in messages[n + 1 : n + 2])
            words, calls = split_calls(content, tools, answered)
            mark = MARK.search(content)
            described = mark and messages[0]["role"] == "system" and mark[0] in messages[0]["content"]
            if calls and (tools or not described):  # else the system prompt says in words how calls are written
                message |= {"content": words, "tool_calls": calls}
                if results:
                    messages[n + 1 : n + 2] = [{"role": "tool", "content": result} for result in results]
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


def _written_results(turns: list[Message]) -> list[str]:
    """The results of tools that the user's turns are and nothing else, as Qwen's templates write them."""
    written = [turn["content"] for turn in turns if turn["role"] == "user" and RESULTS.fullmatch(turn["content"])]
    return [result for text in written for result in RESULT_TEXT.findall(text)]


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
        for k, message in enumerate(run):
            reason = "The call has a result already." if ids[k] in ids[:k] else ""
            if ids[k] not in wanted:
                reason = f"The result is of no call before it: those are {', '.join(wanted)[:200]}."
            if reason:
                report("odd_result", f"{name}[{n + k}].tool_call_id", message["tool_call_id"], reason)
        if lacking := [call_id for call_id in wanted if call_id not in ids]:
            report("odd_result", f"{name}[{n - 1}].tool_calls", lacking, "No result follows for these calls.")


def _results(messages: list[Message]) -> Iterator[tuple[int, list[Message]]]:
    """(index of its first, the results) of each run of tools' turns behind an answer."""
    for n in range(1, len(messages)):
        if messages[n]["role"] == "tool" and messages[n - 1]["role"] == "assistant":
            end = next((m for m in range(n, len(messages)) if messages[m]["role"] != "tool"), len(messages))
            yield n, messages[n:end]
