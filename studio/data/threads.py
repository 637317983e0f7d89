"""One turn a row: rows with a role and a text are gathered into the conversations they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from studio.data.block import ROWS_PER_BLOCK, Block
from studio.data.formats import LIST_COLUMNS, as_row
from studio.data.formats.messages import role_of
from studio.data.roles import CONTENT_KEYS, ROLE_KEYS
from studio.errors import DataError

IDS = ("conversation_id", "conv_id", "conversation", "dialogue_id", "dialog_id", "chat_id", "thread_id", "session_id", "conversationid",
       "conversationId", "sessionId", "threadId", "chatId", "dialogId", "thread", "session", "message_tree_id", "convo_id", "dialogue", "dialog",
       "sample_id", "example_id", "group_id", "ticket_id", "会话", "会话id", "对话id")  # fmt: skip
PLACES = (
    "turn",
    "turn_id",
    "turn_index",
    "turn_idx",
    "turn_number",
    "position",
    "index",
    "order",
    "seq",
    "sequence",
    "step",
    "message_index",
    "idx",
)
MEMBER, PARENT = ("message_id", "id", "uuid"), ("parent_id", "parent", "parent_message_id", "parentId")
NOT = frozenset(
    (
        "prompt",
        "completion",
        "instruction",
        "output",
        "response",
        "answer",
        "question",
        "chosen",
        "rejected",
        *LIST_COLUMNS,
    )
) - {"dialogue", "dialog", "conversation"}


@dataclass(frozen=True)
class Thread:
    """The columns that say who speaks, what, in which conversation, and at which place; or whom a row answers."""

    role: str
    content: str
    conversation: str | None = None
    place: str | None = None
    member: str | None = None
    parent: str | None = None


def detect_thread(rows: list[Any], name: str) -> Thread | None:
    """How rows of one turn each belong together; None where they are no such rows.

    Raises DataError where they are, and no column says which conversation a turn is of.
    """
    rows = [row for row in map(as_row, rows) if isinstance(row, dict)][:200]
    columns = set().union(*rows) if rows else set()
    role = next((k for k in ROLE_KEYS if k in columns), None)
    content = next((k for k in CONTENT_KEYS if k in columns), None)
    if role is None or content is None or not NOT.isdisjoint(columns):
        return None
    known = [row for row in rows if role_of(row.get(role)) and isinstance(row.get(content), str)]
    if len(known) * 10 < 9 * len(rows) or len(rows) < 2:
        return None
    member, parent = (next((k for k in names if k in columns), None) for names in (MEMBER, PARENT))
    if member and parent:
        return Thread(role, content, member=member, parent=parent)
    conversation = next((k for k in columns if k.lower() in IDS or k in IDS), None)
    if conversation is None:
        raise DataError(
            f"{name} holds one turn a row (columns {role}, {content}), and no column says which turns belong together.",
            'Add a column conversation_id with one number for each conversation; or write each as {"messages": [{"role", "content"}, …]}.',
            name,
        )
    return Thread(role, content, conversation, next((k for k in PLACES if k in columns), None))


def group_turns(blocks: Iterable[Block], how: Thread) -> Iterator[Block]:
    """Conversations in the order in which they begin, each with the line of its first turn. Held in memory."""
    turns = [
        (row, block.lines[n] if block.lines else None)
        for block in blocks
        for n, row in enumerate(map(as_row, block.rows))
        if isinstance(row, dict)
    ]
    threads = _branches(turns, how) if how.parent else _groups(turns, how)
    used = sum(map(len, threads))
    key = how.parent or how.conversation
    note = f"{len(turns)} rows of one turn each were gathered into {len(threads)} conversations by the column {key}."
    if used < len(turns):
        note += f" {len(turns) - used} rows stand in other branches, or in no conversation, and are not used."
    block = Block(notes=[note], lines=None if not turns or turns[0][1] is None else [])
    for thread in threads:
        messages = [{"role": row.get(how.role), "content": row.get(how.content)} | _more(row) for row, _ in thread]
        block.rows.append({"messages": messages})
        if block.lines is not None:
            block.lines.append(thread[0][1])
        if len(block.rows) >= ROWS_PER_BLOCK:
            yield block
            block = Block(lines=None if block.lines is None else [])
    yield block


Turn = tuple[dict[str, Any], Any]


def _more(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: row[key]
        for key in ("name", "tool_calls", "tool_call_id", "weight", "reasoning_content")
        if row.get(key) not in (None, "")
    }


def _groups(turns: list[Turn], how: Thread) -> list[list[Turn]]:
    found: dict[str, list[Turn]] = {}
    for row, line in turns:
        if row.get(how.conversation) not in (None, ""):
            found.setdefault(str(row[how.conversation]), []).append((row, line))
    if how.place is None:
        return list(found.values())
    return [sorted(thread, key=lambda turn: _number(turn[0].get(how.place))) for thread in found.values()]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("inf")


def _branches(turns: list[Turn], how: Thread) -> list[list[Turn]]:
    """From every first turn the replies, of several the one that was ranked best, else the first."""
    replies: dict[str, list[Turn]] = {}
    known = {str(row.get(how.member)) for row, _ in turns}
    heads = []
    for row, line in turns:
        parent = row.get(how.parent)
        if parent in (None, "") or str(parent) not in known:
            heads.append((row, line))
        else:
            replies.setdefault(str(parent), []).append((row, line))
    found = []
    for head in heads:
        thread, seen = [head], {str(head[0].get(how.member))}
        while rest := replies.get(str(thread[-1][0].get(how.member))):
            best = min(rest, key=lambda turn: _number(turn[0].get("rank")))
            if str(best[0].get(how.member)) in seen:
                break
            seen.add(str(best[0].get(how.member)))
            thread.append(best)
        found.append(thread)
    return found
