"""Tool calls as models write them at the end of their answers, read for the rows of data and for what a model says.

Behind the first mark stand calls, marks, and nothing else. Held against the published chat templates in
tests/test_written_calls.py.
"""

from __future__ import annotations

import re

from studio.text.call_marks import BARE, FILLER, MARK
from studio.text.call_spellings import SPELLINGS, Call, Tools
from studio.text.tool_calls import names_of

NAMED_FIRST = re.compile(r"\s*(?:to=)?(?:functions\.)?([\w.-]+?)(?:\.call)?\s*[({]")  # a call without a mark
FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)
# how gpt-oss parts its answers
CHANNELS = ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|channel|>commentary<|message|>",
            "<|end|>", "<|start|>assistant")  # fmt: skip
CHANNEL = re.compile("|".join(map(re.escape, CHANNELS)))


def read_calls(text: str, tools: Tools = ()) -> list[Call] | None:
    """The calls that a text is, as calls_of gives them; None where anything else stands in it.

    tools: those declared; they tell the types of arguments that are written without.
    """
    calls: list[Call] = []
    end = FILLER.match(text).end()  # type: ignore[union-attr]
    try:
        while end < len(text):
            found = next(filter(None, (spelling(text, end, tools) for spelling in SPELLINGS)), None)
            if found is None:
                return None
            calls += found[0]
            end = FILLER.match(text, found[1]).end()  # type: ignore[union-attr]
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return calls or None


def split_calls(answer: str, tools: Tools, certain: bool) -> tuple[str, list[Call] | None]:
    """(words, calls) of an answer that ends with calls in a model's marks, or is calls of the declared tools without.

    Marks within its reasoning are none. certain: without declared tools, calls may follow words. [] where it calls
    nothing; None where marks of a call stand around something else.
    """
    if "<|channel|>" in answer:
        answer = Channels().plain(answer)
    thinking, end, said = answer.rpartition("</think>")
    mark = MARK.search(said)
    if mark is None:
        said = fenced[1] if tools and (fenced := FENCE.fullmatch(said)) else said
        names = set(names_of([*tools]))
        begins = BARE.match(said) or (named := NAMED_FIRST.match(said)) and named[1] in names
        calls = read_calls(said, tools) if not end and begins else None
        return ("", calls) if calls and called(calls) <= names else (answer, [])
    before, calls = said[: mark.start()], read_calls(said[mark.start() :], tools)
    if calls is None:
        return answer, None
    return ((thinking + end + before).rstrip(), calls) if tools or certain or not before.strip() else (answer, [])


def called(calls: list[Call]) -> set[str]:
    """The names of the functions that are called."""
    return {call["function"]["name"] for call in calls}


class Channels:
    """gpt-oss's channels as others write them: the analysis between <think> and </think>, the rest as it is."""

    def __init__(self) -> None:
        self.thinking = False

    def plain(self, text: str) -> str:
        """The text that comes next. A mark must stand in it whole."""
        return CHANNEL.sub(self._written, text)

    def _written(self, mark: re.Match[str]) -> str:
        if mark[0] == CHANNELS[0] and not self.thinking:
            self.thinking = True
            return "<think>\n"
        if mark[0] == "<|end|>" and self.thinking:
            self.thinking = False
            return "\n</think>\n\n"
        return ""
