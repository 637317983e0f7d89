"""Gemini and Vertex AI: {"systemInstruction": …, "contents": [{"role", "parts": [{"text"}]}], "tools": …}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.messages import is_turn

TITLE = "contents and parts, as Gemini and Vertex AI write them"
NAME = "contents"
KEYS = frozenset(("contents",))
SYSTEM = ("systemInstruction", "system_instruction")


def match(row: Row) -> bool:
    value = row.get("contents")
    return isinstance(value, list) and bool(value) and all(map(is_turn, value))


def rewrite(row: Row, matches: bool, report: ReportProblem) -> Row | None:
    name = next((n for n in SYSTEM if row.get(n)), None)
    rest = without(row, "contents", "tools", name)
    messages = list(row["contents"])
    if name:
        content = row[name]
        turn = dict(content) if isinstance(content, dict) else {"content": content}
        messages.insert(0, turn | {"role": "system"})
    return rest | {"messages": messages} | ({"tools": _tools(row["tools"])} if row.get("tools") else {})


def _tools(tools: Any) -> Any:
    """Function declarations as OpenAI writes tools."""
    if not isinstance(tools, list):
        return tools
    openai_tools = []
    for tool in tools:
        declared = (
            tool.get("functionDeclarations", tool.get("function_declarations")) if isinstance(tool, dict) else None
        )
        if isinstance(declared, list):
            openai_tools += [{"type": "function", "function": declaration} for declaration in declared]
        else:
            openai_tools.append(tool)
    return openai_tools
