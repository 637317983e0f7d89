"""A turn's content as a list of parts: text, reasoning, tool calls and results, as several makers write them."""

from __future__ import annotations

import json
from typing import Any

from studio.data.formats import ReportProblem
from studio.data.tracked_row import without

TEXTS = ("text", "input_text", "output_text", None)
THOUGHTS = ("thinking", "reasoning", "thought", "redacted_thinking")
CALLS = ("tool_use", "tool_call", "function_call", "functionCall")
RESULTS = ("tool_result", "tool_response", "function_response", "functionResponse")
Turn = dict[str, Any]


def turns_from_parts(turn: Turn, key: str, report: ReportProblem, where: str) -> list[Turn] | None:
    """The turns that a turn with a list of parts stands for; None, and reported, when it cannot be trained on.

    Results of tools are turns of their own, before the words that stand beside them.
    """
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Turn] = []
    results: list[Turn] = []
    for n, part in enumerate(turn[key]):
        kind, value = _kind(part)
        if kind == "text":
            texts.append(value)
        elif kind == "thought":
            thoughts.append(value)
        elif kind == "call":
            calls.append(value)
        elif kind == "result":
            results.append(value)
        elif kind:
            reason = f"The turn holds {kind}: training here is on text alone. Take such parts out, or drop the row."
            return report("wrong_type", f"{where}.{key}[{n}]", part, reason)
        else:
            return report(
                "wrong_type",
                f"{where}.{key}[{n}]",
                part,
                'A part of a content must be text, such as {"type": "text", "text": "…"}.',
            )
    left = without(turn, key)
    if calls:
        left["tool_calls"] = [*(turn.get("tool_calls") or []), *calls]
    if thoughts:
        left["reasoning_content"] = "\n".join(thoughts)
    said = (
        [left | {key: "\n".join(texts) if texts or not calls else None}]
        if texts or calls or thoughts or not results
        else []
    )
    return [*results, *said]


def _kind(part: Any) -> tuple[str, Any]:
    """("text" | "thought" | "call" | "result", value); (its medium, None) for pictures and sounds; else ("", None)."""
    if isinstance(part, str):
        return "text", part
    if not isinstance(part, dict):
        return "", None
    named = part.get("type")
    said = next(
        (part[k] for k in ("text", "value", "content", "thinking", "reasoning") if isinstance(part.get(k), str)), None
    )
    if part.get("thought") is True or named in THOUGHTS:
        return ("thought", said) if said is not None else ("", None)
    if named in CALLS or any(k in part for k in CALLS):
        call = _call(part, said)
        return ("call", call) if call else ("", None)
    if named in RESULTS or any(k in part for k in RESULTS):
        return "result", _result(part)
    if named in TEXTS and said is not None:
        return "text", said
    for what in ("image", "audio", "video", "file", "document", "inlineData", "inline_data", "fileData"):
        if what in str(named).lower() or any(what in str(k) for k in part):
            return "a file" if what.startswith(
                ("inline", "file")
            ) else f"{'an' if what[0] in 'ai' else 'a'} {what}", None
    return "", None


def _call(part: Turn, said: str | None) -> Turn | None:
    """A call as OpenAI writes it: {"id"?, "type": "function", "function": {"name", "arguments"}}."""
    called = next((part[k] for k in CALLS if isinstance(part.get(k), dict)), part)
    if said is not None and "name" not in called:
        try:
            called = json.loads(said)
        except ValueError:
            return None
    if not isinstance(called, dict) or not isinstance(called.get("name"), str):
        return None
    arguments = next((called[k] for k in ("arguments", "input", "args", "parameters") if k in called), {})
    made = {"type": "function", "function": {"name": called["name"], "arguments": arguments}}
    return made | ({"id": part["id"]} if isinstance(part.get("id"), str) else {})


def _result(part: Turn) -> Turn:
    given = next((part[k] for k in RESULTS if isinstance(part.get(k), dict)), part)
    said = next((given[k] for k in ("content", "response", "output", "value", "text", "result") if k in given), "")
    if isinstance(said, list) and all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in said):
        said = "\n".join(one["text"] for one in said)
    made = {"role": "tool", "content": said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)}
    name, answered = given.get("name"), part.get("tool_use_id", part.get("tool_call_id"))
    return (
        made
        | ({"name": name} if isinstance(name, str) else {})
        | ({"tool_call_id": answered} if isinstance(answered, str) else {})
    )
