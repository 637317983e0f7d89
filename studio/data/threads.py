"""Files of one turn a row: groups the rows into conversations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from studio.data.block import ROWS_PER_BLOCK, Block
from studio.data.column_names import options
from studio.data.formats import LIST_COLUMNS, as_row
from studio.data.formats.messages import role_of
from studio.data.mapping import lowered
from studio.data.roles import CONTENT_KEYS, ROLE_KEYS, SPELLINGS, USER_FLAGS
from studio.errors import DataError

CONVERSATION_COLUMNS = (
    "conversation_id", "conv_id", "conversation", "dialogue_id", "dialog_id", "chat_id", "thread_id", "session_id",
    "conversationid", "conversationId", "sessionId", "threadId", "chatId", "dialogId", "thread", "session",
    "message_tree_id", "convo_id", "dialogue", "dialog", "sample_id", "example_id", "group_id", "ticket_id", "会话",
    "会话id", "对话id"
)  # fmt: skip
POSITION_COLUMNS = (
    "turn", "turn_id", "turn_index", "turn_idx", "turn_number", "position", "index", "order", "seq", "sequence",
    "step", "message_index", "idx", "ts", "created_at", "timestamp", "createdAt", "sent_at", "send_date", "date",
    "time"
)  # fmt: skip
SPEAKER_KEYS = ("user", "username", "user_name", "nick", "nickname", "name")  # of a chat between people
CHAT_COLUMNS = frozenset(("ts", "thread_ts", "channel", "conversation_id", "chat_id", "thread_id", "session_id"))
DIRECTIONS = frozenset(("incoming", "outgoing", "inbound", "outbound", "received", "sent"))  # of a message
WORDS = (*CONTENT_KEYS, "body", "Text", "Message", "Content", "Body")
SERVICE_TYPES = ("channel_join", "channel_leave", "channel_topic", "channel_purpose", "bot_add")  # Slack's
SPEAKERS = {"true": "user", "false": "assistant"}  # where a flag says whether it is the user
MORE_KEYS = ("name", "tool_calls", "tool_call_id", "weight", "reasoning_content")
MESSAGE_ID_COLUMNS = ("message_id", "id", "uuid", "tweet_id")
PARENT_COLUMNS = ("parent_id", "parent", "parent_message_id", "parentId", "in_response_to_tweet_id")
QUESTIONS_AND_ANSWERS = ("prompt", "completion", "instruction", "output", "response", "answer", "question")
OTHER_LAYOUT_COLUMNS = frozenset((*QUESTIONS_AND_ANSWERS, *LIST_COLUMNS)) - {"dialogue", "dialog", "conversation"}
SESSION = "sessionId"  # Claude Code's


@dataclass(frozen=True)
class ThreadColumns:
    """The columns for role, content, conversation and position of a turn; or for its id and its parent's."""

    role: str  # who speaks, or true where the user does
    content: str
    conversation: str | None = None  # None: all turns up to the next row that is none, as in a file of one chat
    position: str | None = None
    member: str | None = None
    parent: str | None = None
    is_lowered: bool = False  # these are the columns' names in lower case


def detect_thread(rows: list[Any], name: str, speakers: Collection[str] = ()) -> ThreadColumns | None:
    """The columns by which rows of one turn each are grouped; None for other rows.

    speakers: names of people that were given roles.
    Raises DataError where they are, and no column says which conversation a turn is of, or who of the speakers is who.
    """
    rows = [row for row in map(unwrapped, rows) if isinstance(row, dict)][:200]
    if sum(SESSION in row for row in rows) * 2 > len(rows):  # beside its turns stand summaries and snapshots
        rows = [row for row in rows if "role" in row] or rows
    columns = list(dict.fromkeys(key for row in rows for key in row))
    content = next((k for k in WORDS if k in columns), None)
    if content is None or not OTHER_LAYOUT_COLUMNS.isdisjoint(columns):
        return None
    member, parent = (next((k for k in names if k in columns), None) for names in (MESSAGE_ID_COLUMNS, PARENT_COLUMNS))
    flag = next((k for k in USER_FLAGS if k in columns), None)
    if flag and member and parent:  # tweets of customers and their support
        return ThreadColumns(flag, content, member=member, parent=parent)
    if flag:  # a chat of SillyTavern
        return ThreadColumns(flag, content, next((k for k in columns if k in CONVERSATION_COLUMNS), None))
    role = next((k for k in (*ROLE_KEYS, *SPEAKER_KEYS) if k in columns), None) or _role_column(rows, columns)
    turns = [
        row for row in rows if role and isinstance(row.get(role), str) and isinstance(row.get(content), (str, list))
    ]
    known = [row for row in turns if role_of(row[role]) or row[role] in speakers]
    if role is None or len(turns) * 10 < 9 * len(rows) or len(rows) < 2:
        return None
    directed = any(row[role].strip().lower() in DIRECTIONS for row in turns)
    if len(known) * 10 < 9 * len(rows):
        if directed or (role in SPEAKER_KEYS and not CHAT_COLUMNS.isdisjoint(columns)):
            raise _unknown_speakers(list(dict.fromkeys(row[role] for row in turns)), role, name)
        return None
    if member and parent:
        return ThreadColumns(role, content, member=member, parent=parent)
    conversation = next((k for k in columns if k.lower() in CONVERSATION_COLUMNS or k in CONVERSATION_COLUMNS), None)
    if conversation is None and (directed or role in SPEAKER_KEYS):
        return ThreadColumns(role, content)
    if conversation is None and role not in ROLE_KEYS:  # "human" and "ai" may be classes of texts
        return None
    if conversation is None:
        raise DataError(
            f"{name} holds one turn a row (columns {role}, {content}), and no column says which turns belong together.",
            'Add a column conversation_id with one number for each conversation; or write each as {"messages": '
            '[{"role", "content"}, …]}.',
            name,
        )
    return ThreadColumns(role, content, conversation, next((k for k in POSITION_COLUMNS if k in columns), None))


def _role_column(rows: list[dict[str, Any]], columns: list[str]) -> str | None:
    """A column of another name that says in every row who speaks, or whether the message came or went."""
    for name in columns:
        words = {row[name].strip().lower() if isinstance(row.get(name), str) else None for row in rows}
        if None not in words and (
            words <= DIRECTIONS or {"user", "assistant"} <= set(map(role_of, words)) <= set(SPELLINGS)
        ):
            return name
    return None


def _unknown_speakers(speakers: list[str], role: str, name: str) -> DataError:
    listed = ", ".join(speakers[:6]) + ", …" * (len(speakers) > 6)
    named = options({"user": speakers[0], "assistant": speakers[-1]})
    return DataError(
        f"{name} is a chat, one turn a row, between {listed} (column {role}), and it is not known whose words are to "
        "be learnt.",
        f"Say who asks and who answers: {named}; the turns of others are refused.",
        name,
    )


def group_turns(blocks: Iterable[Block], how: ThreadColumns) -> Iterator[Block]:
    """The conversations in the order of their first turns, each with the line of its first turn. Held in memory."""
    turns: list[Turn] = []
    notes: list[str] = []
    for block in blocks:
        notes += block.notes
        lines = block.lines or [None] * len(block.rows)
        rows = map(lowered if how.is_lowered else unwrapped, block.rows)
        turns += [(row, line) for row, line in zip(rows, lines, strict=True) if isinstance(row, dict)]
    threads = _branches(turns, how) if how.parent else _groups(turns, how)
    used = sum(map(len, threads))
    key = how.parent or how.conversation
    by = f"by the column {key}" if key else "each up to the next row that is no turn"
    note = f"Rows of one turn each were gathered into conversations, {by}: {len(turns)} into {len(threads)}."
    if used < len(turns):
        note += f" Not used, as they stand in other branches or in no conversation: {len(turns) - used}."
    block = Block(notes=[*notes, note], lines=None if not turns or turns[0][1] is None else [])
    for thread in threads:
        messages = [
            {"role": SPEAKERS.get(str(row[how.role]).lower(), row[how.role]), "content": row.get(how.content)}
            | _more(row)
            for row, _ in thread
        ]
        block.rows.append({"messages": joined(messages)})
        if block.lines is not None:
            block.lines.append(thread[0][1])
        if len(block.rows) >= ROWS_PER_BLOCK:
            yield block
            block = Block(lines=None if block.lines is None else [])
    yield block


Turn = tuple[dict[str, Any], Any]


def _more(row: dict[str, Any]) -> dict[str, Any]:
    more = {key: row[key] for key in MORE_KEYS if row.get(key) not in (None, "")}
    if any(key in row for key in USER_FLAGS):
        more.pop("name", None)
    extra = row.get("extra")
    if isinstance(extra, dict) and isinstance(extra.get("reasoning"), str) and extra["reasoning"].strip():
        more["reasoning"] = extra["reasoning"]  # SillyTavern's
    return more


def _groups(turns: list[Turn], how: ThreadColumns) -> list[list[Turn]]:
    threads: dict[str, list[Turn]] = {}
    chat = 0
    for row, line in turns:
        is_turn = how.role in row and isinstance(row.get(how.content), (str, list))
        chat += not is_turn
        if not is_turn or row.get("is_system") is True or row.get("subtype") in SERVICE_TYPES:
            continue
        conversation = chat if how.conversation is None else row.get(how.conversation)
        if conversation not in (None, ""):
            threads.setdefault(str(conversation), []).append((row, line))
    position = how.position
    if position is None:
        return list(threads.values())
    return [sorted(thread, key=lambda turn: _number(turn[0].get(position))) for thread in threads.values()]


def _number(value: Any) -> float:
    """A position or a time as a number, to sort by; infinity for what is neither."""
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return float("inf")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _branches(turns: list[Turn], how: ThreadColumns) -> list[list[Turn]]:
    """The conversations of every first turn: at each reply the one that was ranked best, else the first."""
    replies: dict[str, list[Turn]] = {}
    known = {str(row.get(how.member)) for row, _ in turns}
    roots = []
    for row, line in turns:
        parent = row.get(how.parent)
        if parent in (None, "") or str(parent) not in known:
            roots.append((row, line))
        else:
            replies.setdefault(str(parent), []).append((row, line))
    threads = []
    for root in roots:
        thread, visited = [root], {str(root[0].get(how.member))}
        while candidates := replies.get(str(thread[-1][0].get(how.member))):
            best = min(candidates, key=lambda turn: _number(turn[0].get("rank")))
            if str(best[0].get(how.member)) in visited:
                break
            visited.add(str(best[0].get(how.member)))
            thread.append(best)
        threads.append(thread)
    return threads


def unwrapped(row: Any) -> Any:
    """A row as turn; of a session of Claude Code, whose turn stands in an object beside its id."""
    row = as_row(row)
    turn = row.get("message") if isinstance(row, dict) and SESSION in row else None
    if not isinstance(turn, dict) or "role" not in turn or row.get("isSidechain") is True or row.get("isMeta") is True:
        return row
    if str(turn.get("content")).startswith(("<command-", "<local-command-")):
        return row
    return {SESSION: row[SESSION], "role": turn["role"], "content": turn.get("content")}


def joined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns, those parts of one answer that stand in rows of their own put together."""
    joined: list[dict[str, Any]] = []
    for message in messages:
        before = joined[-1] if joined else {}
        lists = isinstance(before.get("content"), list) and isinstance(message["content"], list)
        if lists and before["role"] == message["role"]:
            joined[-1] = before | {"content": [*before["content"], *message["content"]]}
        else:
            joined.append(message)
    return joined
