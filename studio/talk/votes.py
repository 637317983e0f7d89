"""Blind votes between two models: the sides are shuffled, and the names are shown after the vote."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any, Literal

from studio import run
from studio.errors import RunError
from studio.evaluation.statistics import wilson
from studio.home import changing, slug, subfolder

Choice = Literal["left", "right", "tie"]


def shuffled(first: str, second: str, generator: random.Random | None = None) -> tuple[str, str]:
    """Return the two names as (left, right) in random order."""
    names = [first, second]
    (generator or random.SystemRandom()).shuffle(names)
    return names[0], names[1]


def vote(left: dict[str, str], right: dict[str, str], choice: Choice, question: str, about: str) -> dict[str, Any]:
    """Append a vote to the file of the run it is about and return it.

    left, right: {"model", "answer"}. Raises RunError.
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
    }
    path = file(about)
    with changing(path), open(path, "ab") as lines:
        lines.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
    return line


def votes(about: str) -> list[dict[str, Any]]:
    """All votes about a run, in order."""
    try:
        lines = file(about).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    parsed = []
    for line in lines:
        try:
            parsed.append(json.loads(line))
        except ValueError:
            continue  # torn by a crash
    return parsed


def tally(about: str, other: str | None = None) -> dict[str, Any]:
    """{votes, wins, losses, ties, rate, low, high} of `about`, against `other` only if given.

    A tie counts half for each.
    """
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
