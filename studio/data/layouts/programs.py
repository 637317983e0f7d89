"""Conversations as programs save them: ChatGPT's tree, Open Assistant's replies, LM Studio, LangChain, AI Studio."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.messages import is_turn
from studio.data.layouts import Layout
from studio.data.roles import CONTENT_KEYS, MESSAGE_COLUMNS, ROLE_KEYS, USER_FLAGS

NAMES = (*MESSAGE_COLUMNS, "interactions", "chunkedPrompt")
CLASSES = {"HumanMessage": "human", "AIMessage": "ai", "SystemMessage": "system", "AIMessageChunk": "ai"}
TYPES = frozenset(("human", "ai", "system", "tool", "user", "assistant", "model", "thought", *CLASSES))
FRAGMENTS = {"REQUEST": "user", "THINK": "thought", "RESPONSE": "assistant"}
NO_WORDS = frozenset(("reasoning_recap", "user_editable_context", "model_editable_context"))  # what the page shows
ROOTS = ("prompt", "root", "tree", "thread", "conversation")
REPLIES = ("replies", "children")


# Turns as programs save them: LM Studio's versions, LangChain's types, is_user, AI Studio's chunks.
def _match_program(row: Row) -> str | None:
    """The column that holds the turns."""
    for name in NAMES:
        turns = _turns(row[name]) if name in row else None
        if turns and all(isinstance(turn, dict) and _rewritten(turn) is not None for turn in turns):
            return name
    return None


def _turns(value: Any) -> list[Any] | None:
    if isinstance(value, dict) and isinstance(value.get("chunks"), list):  # Google AI Studio's
        return [_chunk(chunk) for chunk in value["chunks"]]
    return value if isinstance(value, list) else None


def _chunk(chunk: Any) -> Any:
    """A chunk as a turn; its role under `type`, where no format looks for one."""
    if not isinstance(chunk, dict) or not isinstance(chunk.get("text"), str):
        return None
    return {"type": "thought" if chunk.get("isThought") else chunk.get("role"), "content": chunk["text"]}


def _rewrite_program(row: Row, name: str, report: ReportProblem) -> Row | None:
    turns = [_rewritten(turn) for turn in _turns(row[name])]
    system = next((n for n in ("systemInstruction", "system_instruction") if row.get(n)), None)
    if system:
        turns.insert(0, {"role": "system", "content": row[system]["parts"] if "parts" in row[system] else row[system]})
    return without(row, name, system) | {"messages": turns}


def _rewritten(turn: dict[str, Any]) -> dict[str, Any] | None:
    """The turn with role and content; None for a turn of another kind."""
    if isinstance(turn.get("versions"), list) and turn["versions"]:
        return _version(turn)
    flag = next((name for name in USER_FLAGS if isinstance(turn.get(name), bool)), None)
    if flag:
        return without(turn, flag, "name") | {"role": "user" if turn[flag] else "assistant"}
    if any(key in turn for key in ROLE_KEYS):
        return None
    kind, inner = turn.get("type"), next((turn[k] for k in ("data", "kwargs") if isinstance(turn.get(k), dict)), turn)
    if kind == "constructor" and isinstance(turn.get("id"), list):
        kind = CLASSES.get(str(turn["id"][-1]))
    if kind not in TYPES or not any(key in inner for key in CONTENT_KEYS):
        return None
    return without(inner, "type", "id") | {"role": CLASSES.get(kind, kind)}


def _version(turn: dict[str, Any]) -> dict[str, Any] | None:
    """The version of a turn that LM Studio shows, the blocks of its steps as one content."""
    chosen = turn.get("currentlySelected", 0)
    versions = turn["versions"]
    if not isinstance(chosen, int) or not 0 <= chosen < len(versions) or not isinstance(versions[chosen], dict):
        return None
    version = versions[chosen]
    parts: list[Any] = []
    for step in version.get("steps") or [version]:
        content = step.get("content") if isinstance(step, dict) else None
        style = step.get("style") if isinstance(step, dict) else None
        thinking = isinstance(style, dict) and style.get("type") == "thinking"
        for part in content if isinstance(content, list) else ():
            parts.append(part | {"type": "thinking"} if thinking and isinstance(part, dict) else part)
    return {"role": version.get("role"), "content": parts}


# An export of ChatGPT or DeepSeek: a conversation as a tree of messages; the branch that was last open is read.
def _match_tree(row: Row) -> bool:
    tree = row.get("mapping")
    return isinstance(tree, dict) and bool(tree) and all(isinstance(n, dict) and "message" in n for n in tree.values())


def _rewrite_tree(row: Row, matches: bool, report: ReportProblem) -> Row | None:
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


# A tree of replies, as Open Assistant exports it: {"prompt": {"text", "role", "replies": [{…}, …]}}.
def _match_replies(row: Row) -> str | None:
    """The column that holds the first turn."""
    return next(
        (n for n in ROOTS if is_turn(row.get(n)) and any(isinstance(row[n].get(k), list) for k in REPLIES)), None
    )


def _rewrite_replies(row: Row, name: str, report: ReportProblem) -> Row | None:
    turns, node = [], row[name]
    while node is not None:
        turns.append(without(node, *REPLIES))
        replies = next((node[key] for key in REPLIES if isinstance(node.get(key), list)), [])
        node = min((reply for reply in replies if is_turn(reply)), key=_rank, default=None)
    return without(row, name) | {"messages": turns}


def _rank(reply: dict[str, Any]) -> float:
    rank = reply.get("rank")
    return rank if isinstance(rank, (int, float)) and not isinstance(rank, bool) else float("inf")


LAYOUTS = (
    Layout("turns as a chat program saves them", _match_program, _rewrite_program, frozenset(NAMES), order=45),
    Layout("ChatGPT's export", _match_tree, _rewrite_tree, frozenset(("mapping",)), column="mapping"),
    Layout(
        "a tree of replies, of which those ranked best are read", _match_replies, _rewrite_replies, frozenset(ROOTS)
    ),
)
