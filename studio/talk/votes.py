"""Blind votes between two models: the sides are shuffled, and the names are shown after the vote."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any, Literal

from studio import json_text, run
from studio.errors import DataError, RunError
from studio.evaluation.statistics import wilson
from studio.home import changing, slug, subfolder

Choice = Literal["left", "right", "tie"]


def shuffled(first: str, second: str, generator: random.Random | None = None) -> tuple[str, str]:
    """Return the two names as (left, right) in random order."""
    names = [first, second]
    (generator or random.SystemRandom()).shuffle(names)
    return names[0], names[1]


def vote(
    left: dict[str, str],
    right: dict[str, str],
    choice: Choice,
    question: str,
    about: str,
    messages: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Append a vote to the file of the run it is about and return it.

    left, right: {"model", "answer"}. messages: the conversation up to the question, None where each side had another.
    Raises RunError.
    """
    if choice not in ("left", "right", "tie"):
        raise RunError(f"{choice!r} is no vote.", "Vote left, right or tie.", "choice")
    winner = {"left": left["model"], "right": right["model"], "tie": None}[choice]
    line = {
        "at": round(time.time(), 3),
        "question": question,
        "left": left,
        "right": right,
        "choice": choice,
        "winner": winner,
        "messages": messages,
    }
    path = file(about)
    with changing(path):
        json_text.append_line(path, line)
    return line


def votes(about: str) -> list[dict[str, Any]]:
    """All votes about a run, in order."""
    return json_text.read_lines(file(about))


def pairs() -> tuple[list[dict[str, Any]], dict[str, int]]:
    """({prompt, chosen, rejected} of all votes, the later of two on the same answers; {why left out: count})."""
    files = [*subfolder("runs").glob("*/votes.jsonl"), *subfolder("chats").glob("*.votes")]
    found = [vote for path in files for vote in json_text.read_lines(path)]
    cast = sorted(found, key=lambda vote: vote.get("at", 0))[::-1]
    rows: dict[str, dict[str, Any]] = {}
    left_out = {"ties": 0, "votes whose sides had other conversations": 0, "votes on equal answers": 0}
    for vote in cast:
        sides = {"left": vote["left"]["answer"].strip(), "right": vote["right"]["answer"].strip()}
        if vote["choice"] not in sides:
            left_out["ties"] += 1
        elif not vote.get("messages"):
            left_out["votes whose sides had other conversations"] += 1
        elif sides["left"] == sides["right"] or not all(sides.values()):
            left_out["votes on equal answers"] += 1
        else:
            other = "right" if vote["choice"] == "left" else "left"
            row = {"prompt": vote["messages"], "chosen": sides[vote["choice"]], "rejected": sides[other]}
            rows.setdefault(json.dumps([vote["messages"], sorted(sides.values())]), row)
    if not rows:
        hint = "Compare two models blind in Chat, and vote for the better answer."
        raise DataError("There are no votes to make pairs of.", hint)
    return list(rows.values())[::-1], {why: count for why, count in left_out.items() if count}


def tally(about: str, other: str | None = None) -> dict[str, Any]:
    """{votes, wins, losses, ties, rate, low, high} of `about`, against `other` if given. A tie counts half each."""
    counted = [vote for vote in votes(about) if other in (None, vote["left"]["model"], vote["right"]["model"])]
    wins = sum(vote["winner"] == about for vote in counted)
    ties = sum(vote["winner"] is None for vote in counted)
    rate = (wins + ties / 2) / len(counted) if counted else None
    low, high = wilson(wins + ties / 2, len(counted))
    return {
        "votes": len(counted),
        "wins": wins,
        "losses": len(counted) - wins - ties,
        "ties": ties,
        "rate": rate,
        "low": low,
        "high": high,
    }


def file(about: str) -> Path:
    """votes.jsonl in the run's folder; for models that are no run, one in the home."""
    identity = about.partition("@")[0]
    known = [known_run for known_run in run.runs() if known_run.id == identity]
    return known[0].folder / "votes.jsonl" if known else subfolder("chats") / f"{slug(about, 'votes')}.votes"
