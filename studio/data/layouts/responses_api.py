"""OpenAI's Responses: messages, function_call and function_call_output as items of `input` and `output`."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without

TITLE = "items, as OpenAI's Responses have them"
NAMES = ("input", "items", "output")
KEYS = frozenset(NAMES)
TYPES = frozenset(("message", "function_call", "function_call_output", "reasoning"))
ORDER = 30


def match(row: Row) -> list[str] | None:
    """The columns that hold items; None where no item has one of the types."""
    names = [
        n for n in NAMES if isinstance(row.get(n), list) and row[n] and all(isinstance(item, dict) for item in row[n])
    ]
    typed = any(item.get("type") in TYPES for n in names for item in row[n])
    return names if typed and "messages" not in row else None


def rewrite(row: Row, names: list[str], report: ReportProblem) -> Row | None:
    turns: list[dict[str, Any]] = []
    if isinstance(row.get("input"), str):
        turns.append({"role": "user", "content": row["input"]})
        names = ["input", *names]
    for name in names:
        for n, item in enumerate(row[name] if isinstance(row[name], list) else ()):
            turn = _turn(item)
            if turn is None:
                return report(
                    "wrong_type", f"{name}[{n}]", item, "An item must be a message, a function_call or its output."
                )
            calling = "tool_calls" in turn and turns and turns[-1]["role"] == "assistant"
            if calling:
                turns[-1]["tool_calls"] = [*turns[-1].get("tool_calls", ()), *turn["tool_calls"]]
            elif turn:
                turns.append(turn)
    if isinstance(row.get("instructions"), str):
        turns.insert(0, {"role": "system", "content": row["instructions"]})
    return without(row, *names, "instructions") | {"messages": turns}


def _turn(item: dict[str, Any]) -> dict[str, Any] | None:
    """The item as a turn of a chat; {} where it says nothing, None where it is of another type."""
    kind = item.get("type")
    if kind == "function_call":
        call = {"function": {"name": item.get("name"), "arguments": item.get("arguments")}}
        if isinstance(item.get("call_id"), str):
            call["id"] = item["call_id"]
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "content": item.get("output"), "tool_call_id": item.get("call_id")}
    if kind == "reasoning":
        parts = [part.get("text") for part in item.get("summary") or () if isinstance(part, dict)]
        return {"role": "thought", "content": "\n".join(filter(None, parts))} if any(parts) else {}
    return dict(item) if "role" in item and kind in ("message", None) else None
