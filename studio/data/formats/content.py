"""A turn's content as a list of parts: text, reasoning, tool calls and results, as several makers write them."""

from __future__ import annotations

import json
from typing import Any

from studio.data.formats import ReportProblem, without

TEXTS = ("text", "input_text", "output_text", "refusal", None)
TEXTS_IN = ("text", "value", "content", "thinking", "reasoning", "refusal")
THOUGHTS = ("thinking", "reasoning", "thought", "redacted_thinking")
CALLS = ("tool_use", "tool_call", "function_call", "functionCall", "toolUse")
RESULTS = ("tool_result", "tool_response", "function_response", "functionResponse", "toolResult")
RICH = (
    *(
        "plain", "bold", "italic", "underline", "strikethrough", "code", "pre", "link", "text_link", "mention",
        "hashtag"
    ),
    *("mention_name", "email", "phone", "spoiler", "blockquote", "custom_emoji", "bot_command", "cashtag"),
)  # fmt: skip
Turn = dict[str, Any]


def turns_from_parts(turn: Turn, key: str, report: ReportProblem, where: str) -> list[Turn] | None:
    """The turns of a list of parts, results of tools first as turns of their own; None for a reported fault."""
    if all(map(_is_piece, turn[key])) and any(isinstance(part, str) for part in turn[key]):
        return [without(turn, key) | {key: "".join(p if isinstance(p, str) else p["text"] for p in turn[key])}]
    by_kind: dict[str, list[Any]] = {"text": [], "thought": [], "call": [], "result": []}
    texts, thoughts, calls, results = by_kind.values()
    for n, part in enumerate(turn[key]):
        if isinstance(part, dict) and part.get("type") == "step-start":  # the AI SDK's
            continue
        kind, value = _kind(part)
        if kind in by_kind:
            by_kind[kind].append(value)
            continue
        reason = 'A part of a content must be text, such as {"type": "text", "text": "…"}.'
        if kind:
            reason = f"The turn holds {kind}: training here is on text alone. Take such parts out, or drop the row."
        return report("wrong_type", f"{where}.{key}[{n}]", part, reason)
    if isinstance(turn.get("tool_call_id"), str):  # said of the turn, as Azure's agents do
        results = [{"tool_call_id": turn["tool_call_id"], **result} for result in results]
    if results and not (texts or calls or thoughts):
        return results
    own_turn = without(turn, key)
    if calls:
        own_turn["tool_calls"] = [*(turn.get("tool_calls") or []), *calls]
    if thoughts:
        own_turn["reasoning_content"] = "\n".join(thoughts)
    return [*results, own_turn | {key: "\n".join(texts) if texts or not calls else None}]


def is_parts(value: Any) -> bool:
    """Whether a content is a list of parts, of whatever medium, and not a value of its own such as a tool's result."""
    return isinstance(value, list) and all(isinstance(part, str) or _kind(part)[0] for part in value)


def _is_piece(part: Any) -> bool:
    """Whether a part is a piece of one rich text, such as Telegram's {"type": "bold", "text": "…"} among strings."""
    return isinstance(part, str) or (
        isinstance(part, dict) and part.get("type") in RICH and isinstance(part.get("text"), str)
    )


def _kind(part: Any) -> tuple[str, Any]:
    """("text" | "thought" | "call" | "result", value); (its medium, None) for pictures and sounds; else ("", None)."""
    if isinstance(part, str):
        return "text", part
    if not isinstance(part, dict):
        return "", None
    part_type = part.get("type")
    inner = part["text"] if isinstance(part.get("text"), dict) else part  # OpenAI's Assistants: {"text": {"value"}}
    text = next((inner[k] for k in TEXTS_IN if isinstance(inner.get(k), str)), None)
    if part.get("thought") is True or part_type in THOUGHTS:
        return ("thought", text) if text is not None else ("", None)
    if part_type in CALLS or any(k in part for k in CALLS):
        call = _call(part, text)
        return ("call", call) if call else ("", None)
    if part_type in RESULTS or any(k in part for k in RESULTS):
        return "result", _result(part)
    if part_type in TEXTS and text is not None:
        return "text", text
    for medium in ("image", "audio", "video", "file", "document", "inlineData", "inline_data", "fileData"):
        if medium in str(part_type).lower() or any(medium in str(k) for k in part):
            article = "an" if medium[0] in "ai" else "a"
            return "a file" if medium.startswith(("inline", "file")) else f"{article} {medium}", None
    return "", None


def _call(part: Turn, text: str | None) -> Turn | None:
    """A call as OpenAI writes it: {"id"?, "type": "function", "function": {"name", "arguments"}}."""
    called = next((part[k] for k in CALLS if isinstance(part.get(k), dict)), part)
    if text is not None and "name" not in called:
        try:
            called = json.loads(text)
        except ValueError:
            return None
    if not isinstance(called, dict) or not isinstance(called.get("name"), str):
        return None
    arguments = next((called[k] for k in ("arguments", "input", "args", "parameters") if k in called), {})
    call = {"type": "function", "function": {"name": called["name"], "arguments": arguments}}
    return call | ({"id": part["id"]} if isinstance(part.get("id"), str) else {})


def _result(part: Turn) -> Turn:
    """A tool's result as a turn: {"role": "tool", "content", "name"?, "tool_call_id"?}."""
    result = next((part[k] for k in RESULTS if isinstance(part.get(k), dict)), part)
    keys = ("content", "response", "output", "value", "text", "result", *RESULTS)
    content = next((result[k] for k in keys if k in result), "" if result is part else result)
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "\n".join(p["text"] for p in content)
    turn = {"role": "tool", "content": content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)}
    name, call_id = result.get("name"), part.get("tool_use_id", part.get("tool_call_id"))
    if isinstance(name, str):
        turn["name"] = name
    if isinstance(call_id, str):
        turn["tool_call_id"] = call_id
    return turn
