"""The device panel: what the driver, the system and the disk say, asked at most once in two seconds."""

from __future__ import annotations

import shutil
import threading
import time
from typing import Any

from studio import cards
from studio.device import Device, devices
from studio.home import home
from studio.memory.overhead import CONTEXT

FRESH = 2.0  # seconds

_lock = threading.Lock()
_seen: dict[str, Any] = {"at": float("-inf")}


def panel(running: dict[str, Any] | None) -> dict[str, Any]:
    """{devices, ram, disk, load}. Bytes and percent; unknown values are None.

    running: the row of the live run. What its trainer reports, and on a card what the card's driver takes for it before the first tensor, is
    its share; the rest of what is taken is others'.
    """
    with _lock:
        if time.monotonic() - _seen["at"] > FRESH:
            _seen.update(at=time.monotonic(), answer=_read())
        answer = _seen["answer"]
    return {**answer, "devices": [_shared(one, running, place) for place, one in enumerate(answer["devices"])]}


def _read() -> dict[str, Any]:
    import psutil  # arrives with the first question, not with the page

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(home())
    seen = [one.model_dump() | {"context": _context(one)} for one in devices()]
    return {
        "devices": seen,
        "ram": {"total": memory.total, "used": memory.total - memory.available},
        "disk": {"total": disk.total, "used": disk.total - disk.free, "free": disk.free},
        "load": psutil.cpu_percent(interval=None),
    }


def _context(one: Device) -> int:
    """Bytes that a process takes of a card beside what torch's allocator counts."""
    if not one.traits.cards:
        return 0
    card = cards.find(one.name, one.memory)
    return card.context if card else CONTEXT


def _shared(one: dict[str, Any], running: dict[str, Any] | None, place: int) -> dict[str, Any]:
    used = one["memory"] - one["free"]
    reported = (running or {}).get("memory_now") or 0
    mine = min(used, reported + one["context"]) if place == 0 and reported else 0
    return {**one, "used": used, "mine": mine, "others": used - mine}
