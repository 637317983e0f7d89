"""Tool calls as models write them at the end of their answers, read for the rows of data and for what a model says.

Behind the first mark stand calls, marks, and nothing else. Held against the published chat templates in
tests/test_written_calls.py.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from studio import python_text
from studio.text.call_marks import BARE, CLOSING, FILLER, MARK
from studio.text.tool_calls import calls_of, names_of

Call = dict[str, Any]
Tools = Sequence[Any]

FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
INVOKE = re.compile(r'<((?:\w+:|｜DSML｜)?)invoke name="([^"\n]+)"\s*>(.*?)(?:</\1invoke>|\Z)', re.DOTALL)
PARAMETER = re.compile(
    r"<(?P<tag>(?:\w+:|｜DSML｜)?parameter)"
    r"(?:=(?P<key>[^>\n]+)| name=\"(?P<name>[^\"\n]+)\"(?: string=\"(?P<text>\w+)\")?)\s*>(?P<value>.*?)</(?P=tag)>",
    re.DOTALL,
)
NAME = re.compile(r"[\w.-]+\s*")
PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>\s*", re.DOTALL)
NAMED = re.compile(
    r"(?:function<｜tool▁sep｜>|(?:<\|start\|>assistant)?(?:<\|channel\|>\w+)?\s*to=)?(?:functions\.)?"
    r"(?P<name>[A-Za-z_][\w.-]*)(?::\d+)?(?:\[CALL_ID\]\w+)?"
    r"(?:\[ARGS\]|<｜tool▁sep｜>|<\|tool_call_argument_begin\|>|"
    r"\s*(?:<\|channel\|>\w+)?\s*(?:<\|constrain\|>)?(?:json)?<\|message\|>)?"
    r"\s*(?:```json)?\s*(?=\{)"
)
GEMMA = re.compile(r"call:([\w.-]+)\s*(?=\{)")
GEMMA_TEXT = re.compile(r'(<\|"\|>|<escape>)(.*?)\1', re.DOTALL)
GEMMA_END = re.compile(r"<tool_call\|>|<end_function_call>")
GEMMA_KEY = re.compile(r'([{,]\s*)([^\s"{}\[\],:]+)\s*:')
PYTHON = re.compile(r"\[?\s*[A-Za-z_][\w.]*\(")
LONGEST_PYTHON = 100_000  # characters
DECODER = json.JSONDecoder()

NAMED_FIRST = re.compile(r"\s*(?:to=)?(?:functions\.)?([\w.-]+?)(?:\.call)?\s*[({]")  # a call without a mark
FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)
# how gpt-oss parts its answers
CHANNELS = ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|channel|>commentary<|message|>",
            "<|end|>", "<|start|>assistant")  # fmt: skip
CHANNEL = re.compile("|".join(map(re.escape, CHANNELS)))


# Each spelling: (calls, where they end) of what stands at a place of the text; None where it is none of these.


def _json(text: str, at: int, tools: Tools) -> tuple[list[Call], int] | None:
    if text[at] not in "[{":
        return None
    try:
        value, end = DECODER.raw_decode(text, at)
    except ValueError:  # perhaps as Python prints it
        closing = CLOSING.search(text, at)
        end = closing.start() if closing else len(text)
        value = text[at:end]
    calls = calls_of(value)
    return (calls, end) if calls else None


def _tagged(text: str, at: int, tools: Tools) -> tuple[list[Call], int] | None:
    """<function=NAME> or <invoke name="NAME"> around parameters, or around their JSON."""
    match = FUNCTION.match(text, at) or INVOKE.match(text, at)
    if match is None:
        return None
    name, inside = match[match.lastindex - 1].strip(), match[match.lastindex].strip()  # type: ignore[operator]
    if inside.startswith("{"):
        return _call(name, json.loads(inside)), match.end()
    if PARAMETER.sub("", inside).strip():
        return None
    arguments = {}
    for parameter in PARAMETER.finditer(inside):
        key, value = (parameter["key"] or parameter["name"]).strip(), parameter["value"]
        if parameter["text"] != "true":
            value = _typed(value.removeprefix("\n").removesuffix("\n"), key, name, tools)
        arguments[key] = value
    return _call(name, arguments), match.end()


def _paired(text: str, at: int, tools: Tools) -> tuple[list[Call], int] | None:
    """GLM's: a name, then keys and values."""
    match = NAME.match(text, at)
    if match is None:
        return None
    name, end, arguments = match[0].strip(), match.end(), {}
    while pair := PAIR.match(text, end):
        arguments[pair[1]], end = _typed(pair[2], pair[1], name, tools), pair.end()
    return (_call(name, arguments), end) if arguments or text.startswith("</tool_call>", end) else None


def _named(text: str, at: int, tools: Tools) -> tuple[list[Call], int] | None:
    """A name and its arguments as JSON, between marks that differ."""
    match = NAMED.match(text, at)
    if match is None:
        return None
    arguments, end = DECODER.raw_decode(text, match.end())
    return _call(match["name"], arguments), end


def _gemma(text: str, at: int, tools: Tools) -> tuple[list[Call], int] | None:
    """call:NAME{key:<|"|>text<|"|>,other:1}: JSON but for the quotation marks."""
    match = GEMMA.match(text, at)
    if match is None:
        return None
    texts: list[str] = []

    def hidden(quoted: re.Match[str]) -> str:
        texts.append(quoted[2])
        return f'"{len(texts) - 1}"'

    closing = GEMMA_END.search(text, match.end())
    end = closing.start() if closing else len(text)
    written = GEMMA_KEY.sub(r'\1"=\2":', GEMMA_TEXT.sub(hidden, text[match.end() : end]))

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {texts[int(key)] if key.isdigit() else key[1:]: shown(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [*map(shown, value)]
        return texts[int(value)] if isinstance(value, str) else value

    return _call(match[1], shown(json.loads(written))), end


def _python(text: str, at: int, tools: Tools) -> tuple[list[Call], int] | None:
    """[f(a=1), g(b="x")], or a line for each call, perhaps printed."""
    if not PYTHON.match(text, at):
        return None
    closing = CLOSING.search(text, at)
    end = closing.start() if closing else len(text)
    if end - at > LONGEST_PYTHON:
        return None
    calls: list[Call] = []
    for line in python_text.parse(text[at:end].strip()).body:
        value = line.value if isinstance(line, ast.Expr) else None
        for call in value.elts if isinstance(value, ast.List) else [value]:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "print" and len(call.args) == 1:
                call = call.args[0]
            if not isinstance(call, ast.Call) or call.args:
                return None
            name = ast.unparse(call.func).removesuffix(".call")  # as Llama 3 calls its built-in tools
            calls += _call(name, {key.arg: ast.literal_eval(key.value) for key in call.keywords})
    return calls, end


SPELLINGS = (_json, _tagged, _gemma, _named, _paired, _python)


def _call(name: str, arguments: Any) -> list[Call]:
    return calls_of([{"name": name, "arguments": arguments}]) or []


def _typed(value: str, key: str, name: str, tools: Tools) -> Any:
    """An argument written without its type: text where the tool is declared so, else JSON, or Python's True."""
    functions = [tool.get("function", tool) for tool in tools]
    schema = next((function.get("parameters") or {} for function in functions if function.get("name") == name), {})
    if ((schema.get("properties") or {}).get(key) or {}).get("type") == "string":
        return value
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
    except ValueError:
        return value


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
