"""Votes of the blind comparison: one line each under STUDIO_HOME/chats/votes.jsonl, and the rate at which a voice wins."""

from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

from studio.home import room

CHOICES = ("left", "right", "tie")
_lock = threading.Lock()


def cast(left: str, right: str, choice: str, prompt: str, conversation: str) -> None:
    """Write a vote down. choice: one of CHOICES, as the sides were shown."""
    vote = {"at": round(time.time(), 1), "left": left, "right": right, "choice": choice, "prompt": prompt, "conversation": conversation}
    line = json.dumps(vote, ensure_ascii=False)
    with _lock, open(room("chats") / "votes.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")


def votes() -> list[dict[str, Any]]:
    """All votes, oldest first."""
    try:
        lines = (room("chats") / "votes.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def rate(one: str, other: str) -> dict[str, Any]:
    """How often `one` won against `other`: {wins, losses, ties, share, low, high}; ties count half; 95 % interval; None without votes."""
    wins = losses = ties = 0
    for vote in votes():
        if {vote["left"], vote["right"]} != {one, other} or one == other:
            continue
        if vote["choice"] == "tie":
            ties += 1
        elif vote[vote["choice"]] == one:
            wins += 1
        else:
            losses += 1
    count = wins + losses + ties
    low, high = interval(wins + ties / 2, count)
    return {"wins": wins, "losses": losses, "ties": ties, "share": (wins + ties / 2) / count if count else None, "low": low, "high": high}


def interval(wins: float, count: int, z: float = 1.96) -> tuple[float | None, float | None]:
    """Wilson's interval for a share (Wilson 1927): sound for few votes too."""
    if not count:
        return None, None
    share, square = wins / count, z * z
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count * count)) / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)
