"""The device panel: what the driver, the system and the disk say, asked at most once in two seconds."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
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

    running: the row of the live run. Its share of a device is what its trainer reports and, on a card, the context
    that the driver takes before the first tensor; the rest of what is used belongs to others.
    """
    with _lock:
        if time.monotonic() - _seen["at"] > FRESH:
            _seen.update(at=time.monotonic(), answer=_read())
        answer = _seen["answer"]
    return {**answer, "devices": [_shared(entry, running, index) for index, entry in enumerate(answer["devices"])]}


def _read() -> dict[str, Any]:
    import psutil  # arrives with the first question, not with the page

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(home())
    seen = [entry.model_dump() | {"context": _context(entry)} for entry in devices()]
    return {
        "devices": seen,
        "ram": {"total": memory.total, "used": memory.total - memory.available},
        "disk": {"total": disk.total, "used": disk.total - disk.free, "free": disk.free},
        "load": _load(psutil.cpu_times),
    }


def _load(cpu_times: Callable[[], Any]) -> float:
    """Percent of the processors' time since the last look, at first in a tenth of a second.

    psutil.cpu_percent counts since the last look of the same thread, and of one that has not looked tells 0.
    """

    def seconds() -> tuple[float, float]:
        now = cpu_times()._asdict()
        return sum(now.values()), now["idle"] + now.get("iowait", 0.0)

    if "times" not in _seen:
        _seen["times"] = seconds()
        time.sleep(0.1)
    (before, idle_before), (now, idle_now) = _seen["times"], seconds()
    _seen["times"] = (now, idle_now)
    return round(100 * (1 - (idle_now - idle_before) / (now - before)), 1) if now > before else 0.0


def _context(entry: Device) -> int:
    """Bytes that a process takes of a card beside what torch's allocator counts."""
    if not entry.traits.cards:
        return 0
    card = cards.find(entry.name, entry.memory)
    return card.context if card else CONTEXT


def _shared(entry: dict[str, Any], running: dict[str, Any] | None, index: int) -> dict[str, Any]:
    used = entry["memory"] - entry["free"]
    reported = (running or {}).get("memory_now") or 0
    mine = min(used, reported + entry["context"]) if index == 0 and reported else 0
    return {**entry, "used": used, "mine": mine, "others": used - mine}
