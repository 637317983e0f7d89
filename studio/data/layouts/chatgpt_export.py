"""An export of ChatGPT or DeepSeek: a conversation as a tree of messages; the branch that was last open is read."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without

TITLE = "ChatGPT's export"
FRAGMENTS = {"REQUEST": "user", "THINK": "thought", "RESPONSE": "assistant"}
NAME = "mapping"
KEYS = frozenset(("mapping",))

NO_WORDS = frozenset(("reasoning_recap", "user_editable_context", "model_editable_context"))  # what the page shows


def match(row: Row) -> bool:
    tree = row.get("mapping")
    return isinstance(tree, dict) and bool(tree) and all(isinstance(n, dict) and "message" in n for n in tree.values())


def rewrite(row: Row, matches: bool, report: ReportProblem) -> Row | None:
    tree, messages = row["mapping"], []
    for node in _branch(tree, row.get("current_node")):
        message = tree[node].get("message")
        if not isinstance(message, dict):
            continue
        if isinstance(message.get("fragments"), list):
            messages += [_fragment(part) for part in message["fragments"] if isinstance(part, dict)]
            continue
        role, content = message.get("author"), message.get("content")
        if isinstance(content, dict) and content.get("content_type") in NO_WORDS:
            continue
        text = _content(content)
        if isinstance(content, dict) and content.get("content_type") == "thoughts":
            role = "thought"
        # the empty turn that stands at the head of every export
        if (role.get("role") if isinstance(role, dict) else role) == "system" and not text:
            continue
        messages.append({"role": role, "content": text})
    return without(row, "mapping", "current_node") | {"messages": messages}


def _fragment(part: dict[str, Any]) -> dict[str, Any]:
    """A turn of DeepSeek's: {"type": "REQUEST" | "THINK" | "RESPONSE", "content"}."""
    return {"role": FRAGMENTS.get(str(part.get("type")), part.get("type")), "content": part.get("content")}


def _branch(tree: dict[str, Any], last: Any) -> list[str]:
    """The nodes from the root to the one that was last open, or to the last one of the file without children."""
    if last not in tree:
        last = next((name for name in reversed(tree) if not tree[name].get("children")), next(reversed(tree)))
    path: list[str] = []
    while last in tree and last not in path:
        path.append(last)
        last = tree[last].get("parent")
    return path[::-1]


def _content(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    if isinstance(content.get("thoughts"), list):
        return "\n".join(str(t.get("content") or t.get("summary") or "") for t in content["thoughts"])
    parts = content.get("parts")
    if not isinstance(parts, list):
        return content.get("text", content.get("result"))
    return "\n".join(parts) if all(isinstance(part, str) for part in parts) else parts
