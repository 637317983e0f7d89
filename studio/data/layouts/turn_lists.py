"""Lists of turns written otherwise: under ids, as columns, as pairs, as texts in turn, inside an object."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.history import pair_keys, pair_of
from studio.data.formats.messages import are_turns, role_of
from studio.data.formats.prompt import COLUMNS
from studio.data.layouts import Layout
from studio.data.roles import CONTENT_KEYS, MESSAGE_COLUMNS, ROLE_KEYS
from studio.text.marks import speaker, unmarked

COLUMNS_OF_TWOS = (*MESSAGE_COLUMNS, "internal")
BEGIN = "<|BEGIN-VISIBLE-CHAT|>"
# `turns` of texts are questions alone, as in MT-bench
IN_TURN = ("data", *(name for name in MESSAGE_COLUMNS if name != "turns"))
LED_UP = ("context", "history", "dialogue_history", "dialog_history")  # what was said, the question last
ASKED = frozenset(COLUMNS["prompt"])
OTHER_LISTS = frozenset(
    ("history", "chosen", "rejected", "tools", "functions", "contents", *MESSAGE_COLUMNS, *COLUMNS["answer"])
)
TEXT_ROLES = ("pretrain", "text", "plain")
ANSWERS_BESIDE = frozenset(("response", "output", "chosen", "rejected", "preferred_output"))
MAX_DEPTH = 4  # objects around a conversation
HOLDERS = frozenset(
    (
        *("body", "data", "example", "sample", "record", "request", "payload", "item", "json", "_source", "doc"),
        *("entry", "log", "trace", "result", "row", "fields", "document", *MESSAGE_COLUMNS),
    )
)


# Turns under ids, as Firebase keeps a list: {"messages": {"-N1": {"role", "text"}, "-N2": …}}.
def _match_keyed(row: Row) -> str | None:
    """The column that holds the conversation."""
    objects = [n for n in MESSAGE_COLUMNS if isinstance(row.get(n), dict)]
    return next((n for n in objects if are_turns([*row[n].values()], known=True)), None)


def _rewrite_keyed(row: Row, name: str, report: ReportProblem) -> Row | None:
    return row | {name: list(row[name].values())}


# A conversation as columns, as `datasets` stores a Sequence: {"from": ["human", "gpt"], "value": ["…", "…"]}.
def _match_columns(row: Row) -> str | None:
    """The column that holds the conversation."""
    return next((n for n in MESSAGE_COLUMNS if _is_table(row.get(n))), None)


def _is_table(value: Any) -> bool:
    if not (isinstance(value, dict) and any(k in value for k in ROLE_KEYS) and any(k in value for k in CONTENT_KEYS)):
        return False
    return all(isinstance(v, list) for v in value.values()) and len({len(v) for v in value.values()}) == 1


def _rewrite_columns(row: Row, name: str, report: ReportProblem) -> Row | None:
    table = row[name]
    return row | {name: [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]}


# Turns as lists of two: [["user", "…"], ["assistant", "…"]], or pairs [[question, answer], …].
# text-generation-webui keeps its chats as such pairs under `internal`; the character speaks first.
def _match_twos(row: Row) -> str | None:
    """The column that holds the conversation."""
    return next(
        (n for n in COLUMNS_OF_TWOS if isinstance(row.get(n), list) and row[n] and all(map(_is_two, row[n]))), None
    )


def _is_two(turn: Any) -> bool:
    return isinstance(turn, (list, tuple)) and len(turn) == 2 and isinstance(turn[0], str)


def _rewrite_twos(row: Row, name: str, report: ReportProblem) -> Row | None:
    turns: list[dict[str, Any]] = []
    named = all(role_of(turn[0]) for turn in row[name])
    for n, turn in enumerate(row[name]):
        pair_turns = [{"role": turn[0], "content": turn[1]}] if named else pair_of(turn, (0, 1), report, f"{name}[{n}]")
        if pair_turns is None:
            return None
        turns += [turn for turn in pair_turns if turn["content"] != BEGIN]
    return without(row, name, "visible") | {"messages" if name == "internal" else name: turns}


# A list of {question, answer} objects: [{"human": "…", "assistant": "…"}, …].
def _match_pairs(row: Row) -> str | None:
    """The column that holds the conversation."""
    if "chosen" in row and "rejected" in row:  # whole conversations, which a comparison reads
        return None
    return next(
        (n for n in MESSAGE_COLUMNS if isinstance(row.get(n), list) and row[n] and all(map(_is_pair, row[n][:8]))), None
    )


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, dict) and pair_keys(tuple(turn)) is not None


def _rewrite_pairs(row: Row, name: str, report: ReportProblem) -> Row | None:
    turns: list[dict[str, Any]] = []
    for n, pair in enumerate(row[name]):
        keys = pair_keys(tuple(pair)) if isinstance(pair, dict) else None
        if keys is None:
            reason = "Every entry must hold a question and its answer, as the first one does."
            return report("wrong_type", f"{name}[{n}]", pair, reason)
        pair_turns = pair_of(pair, keys, report, f"{name}[{n}]")
        if pair_turns is None:
            return None
        turns += pair_turns
    return row | {name: turns}


# A list of texts, question and answer in turn, as UltraChat writes them: {"data": ["…", "…"]}.
def _match_texts(row: Row) -> tuple[str, str | None] | None:
    """The column that holds the conversation, and that of its last answer where it ends with a question."""
    names = [n for n in (*IN_TURN, *LED_UP) if isinstance(row.get(n), list) and len(row[n]) > 1]
    name = next((n for n in names if all(isinstance(said, str) for said in row[n])), None)
    if name is None or name in IN_TURN:
        return name and (name, None)
    answer = next((n for n in COLUMNS["answer"] if isinstance(row.get(n), str)), None)
    return (name, answer) if answer and ASKED.isdisjoint(row) else None


def _rewrite_texts(row: Row, columns: tuple[str, str | None], report: ReportProblem) -> Row | None:
    name, answer = columns
    said = [*row[name], row[answer]] if answer else row[name]
    first = len(said) % 2 if answer else 0  # who answers last is the assistant
    turns = [{"role": ("user", "assistant")[(n + first) % 2], "content": content} for n, content in enumerate(said)]
    names = row.get("speakers")
    if isinstance(names, list) and len(names) == len(turns):  # SODA's: who asks speaks first
        who = [*map(str, names)]
        roles = {} if all(map(role_of, who)) else dict(zip(dict.fromkeys(who), ("user", "assistant")))
        if roles and len({*who}) > 2:
            reason = "More than two people speak: a conversation is of one who asks and one who answers."
            return report("wrong_type", "speakers", names, reason)
        turns = [turn | {"role": roles.get(name, name)} for turn, name in zip(turns, who, strict=True)]
    if all(speaker(turn["content"]) == turn["role"] for turn in turns):  # 问：…, 答：…, as HuatuoGPT writes them
        turns = [turn | {"content": unmarked(turn["content"])} for turn in turns]
    return without(row, name, answer) | {"messages": turns}


# Turns in a column of any name: {"id": …, "items": [{"from": "human", "value": "…"}, …]}.
def _match_unnamed(row: Row) -> str | None:
    """The column that holds the conversation."""
    if any(not isinstance(row[name], bool) for name in OTHER_LISTS.intersection(row)):
        return None
    names = [name for name, value in row.items() if are_turns(value, known=True) and len(value) > 1]
    return names[0] if len(names) == 1 else None


def _rewrite_unnamed(row: Row, name: str, report: ReportProblem) -> Row | None:
    return without(row, name) | {"messages": [*map(_with_words, row[name])]}


def _with_words(turn: dict[str, Any]) -> dict[str, Any]:
    """SWE-agent's system turn, whose words stand beside its content, as others; any other turn as it is."""
    if "role" in turn and turn.get("text") is None and isinstance(turn.get("system_prompt"), str):
        return {"role": turn["role"], "content": turn["system_prompt"]}
    return turn


# A plain text as a conversation of one turn, as XTuner writes it: {"messages": [{"role": "pretrain", …}]}.
def _match_lone(row: Row) -> tuple[str, Any] | None:
    """(the column, the text) of such a row."""
    for name in MESSAGE_COLUMNS:
        turn, *more = row[name] if isinstance(row.get(name), list) and row[name] else [None]
        if isinstance(turn, dict) and not more and any(turn.get(key) in TEXT_ROLES for key in ROLE_KEYS):
            return name, next((turn[key] for key in CONTENT_KEYS if key in turn), None)
    return None


def _rewrite_lone(row: Row, turn: tuple[str, Any], report: ReportProblem) -> Row | None:
    name, text = turn
    return without(row, name) | {"text": text}


# A conversation inside an object: {"body": {"messages": […]}}, {"conversation": {"turns": […]}}.
def _match_inside(row: Row) -> str | None:
    """The column that holds the conversation."""
    if any(isinstance(row.get(n), list) for n in MESSAGE_COLUMNS) or not ANSWERS_BESIDE.isdisjoint(row):
        return None
    names = [name for name, value in row.items() if name in HOLDERS and _holder(value)]
    return names[0] if len(names) == 1 else None


def _holder(value: Any, depth: int = 1) -> dict[str, Any] | None:
    """The object that has the list of turns: the value, or the only one inside that has one."""
    if not isinstance(value, dict) or depth > MAX_DEPTH:
        return None
    if any(isinstance(value.get(column), list) and value[column] for column in MESSAGE_COLUMNS):
        return value
    inner = [holder for other in value.values() if (holder := _holder(other, depth + 1))]
    return inner[0] if len(inner) == 1 else None


def _rewrite_inside(row: Row, name: str, report: ReportProblem) -> Row | None:
    return without(row, name) | _holder(row[name])


LAYOUTS = (
    Layout("turns under ids", _match_keyed, _rewrite_keyed, frozenset(MESSAGE_COLUMNS), order=20),
    Layout("turns as columns", _match_columns, _rewrite_columns, frozenset(MESSAGE_COLUMNS)),
    Layout("turns as lists of two", _match_twos, _rewrite_twos, frozenset(COLUMNS_OF_TWOS)),
    Layout("pairs of question and answer", _match_pairs, _rewrite_pairs, frozenset(MESSAGE_COLUMNS)),
    Layout("texts in turn, as in UltraChat", _match_texts, _rewrite_texts, frozenset((*IN_TURN, *LED_UP))),
    Layout("turns in a column of another name", _match_unnamed, _rewrite_unnamed, None, order=90),
    Layout("a text in a turn of its own", _match_lone, _rewrite_lone, frozenset(MESSAGE_COLUMNS)),
    Layout("messages inside an object", _match_inside, _rewrite_inside, HOLDERS, order=60),
)
