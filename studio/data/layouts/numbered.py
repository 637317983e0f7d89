"""Turns in numbered columns: user_1, assistant_1, user_2, assistant_2; or message_1, message_2, in turn."""

from __future__ import annotations

import re
from functools import lru_cache

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.prompt import COLUMNS

TITLE = "turns in numbered columns"
TEXTS = True
QUESTIONS = frozenset((*COLUMNS["prompt"], "human", "turn_user", "User", "Human", "Question", "Q"))
ANSWERS = frozenset((*COLUMNS["answer"], "gpt", "bot", "model", "Assistant", "Answer", "A"))
IN_TURN = frozenset(("message", "turn", "utterance"))  # CAMEL's
KEYS = frozenset(f"{name}{sign}{n}" for name in QUESTIONS | IN_TURN for sign in ("", "_", " ", "-") for n in "01")
NUMBERED = re.compile(r"(.*?)[ _-]?(\d+)")


@lru_cache(maxsize=1024)
def turn_columns(columns: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(question, answer) columns in the order of their numbers; () unless each has its other and there are several.

    One pair is enough where the names do not say who speaks: the user begins.
    """
    spoken = {int(end[2]): name for name in columns if (end := NUMBERED.fullmatch(name)) and end[1] in IN_TURN}
    if len(spoken) >= 2:
        names = [spoken[n] for n in sorted(spoken)]
        return () if len(names) % 2 else tuple(zip(names[::2], names[1::2]))
    questions: dict[int, str] = {}
    answers: dict[int, str] = {}
    for name in columns:
        if end := NUMBERED.fullmatch(name):
            sides = ((QUESTIONS, questions), (ANSWERS, answers))
            side = next((side for names, side in sides if end[1] in names), {})
            if int(end[2]) in side:
                return ()
            side[int(end[2])] = name
    if len(questions) < 2 or set(questions) != set(answers):
        return ()
    return tuple((questions[n], answers[n]) for n in sorted(questions))


def match(row: Row) -> tuple[tuple[str, str], ...]:
    pairs = turn_columns(tuple(row))
    texts = all(row[name] is None or isinstance(row[name], str) for pair in pairs for name in pair)
    return pairs if pairs and texts else ()


def rewrite(row: Row, pairs: tuple[tuple[str, str], ...], report: ReportProblem) -> Row | None:
    last = max((n for n, (q, a) in enumerate(pairs, 1) if (row[q] or "").strip() or (row[a] or "").strip()), default=0)
    turns = []
    for question, answer in pairs[:last]:  # a short conversation leaves its last columns empty
        for name, role in ((question, "user"), (answer, "assistant")):
            if not (row[name] or "").strip():
                return report("empty_field", name, row[name])
            turns.append({"role": role, "content": row[name]})
    return without(row, *(name for pair in pairs for name in pair)) | {"messages": turns}
