"""A list of texts, question and answer in turn, as UltraChat writes them: {"data": ["…", "…"]}."""

from __future__ import annotations

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.messages import role_of
from studio.data.formats.prompt import COLUMNS
from studio.data.roles import MESSAGE_COLUMNS
from studio.text.marks import speaker, unmarked

TITLE = "texts in turn, as in UltraChat"
# `turns` of texts are questions alone, as in MT-bench
NAMES = ("data", *(name for name in MESSAGE_COLUMNS if name != "turns"))
LED_UP = ("context", "history", "dialogue_history", "dialog_history")  # what was said, the question last
ASKED = frozenset(COLUMNS["prompt"])
KEYS = frozenset((*NAMES, *LED_UP))


def match(row: Row) -> tuple[str, str | None] | None:
    """The column that holds the conversation, and that of its last answer where it ends with a question."""
    names = [n for n in (*NAMES, *LED_UP) if isinstance(row.get(n), list) and len(row[n]) > 1]
    name = next((n for n in names if all(isinstance(said, str) for said in row[n])), None)
    if name is None or name in NAMES:
        return name and (name, None)
    answer = next((n for n in COLUMNS["answer"] if isinstance(row.get(n), str)), None)
    return (name, answer) if answer and ASKED.isdisjoint(row) else None


def rewrite(row: Row, columns: tuple[str, str | None], report: ReportProblem) -> Row | None:
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
