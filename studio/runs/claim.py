"""A device is claimed by a lock that the run's supervisor takes and its trainer inherits: free only when all of them are gone."""

from __future__ import annotations

import os

from studio.device import Device, devices
from studio.events import Lock
from studio.home import room


def device_lock(device: Device) -> Lock:
    """Held by the run that uses the device, its trainer's processes included."""
    return Lock(room("locks") / f"device-{visible_name(device)}")


def visible_name(device: Device) -> str:
    """What names the device in CUDA_VISIBLE_DEVICES, so that two pages that see different cards still mean the same one; "cpu" without."""
    if device.kind != "cuda":
        return device.kind
    named = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    return named[device.index] if device.index < len(named) else str(device.index)


def device_locks() -> list[Lock]:
    return [device_lock(device) for device in devices()]


def take_devices(count: int) -> list[tuple[Device, Lock]] | None:
    """So many free devices, locked; all or none. More than there are: all that there are, for the trainer to refuse in words."""
    count = min(count, len(devices()))
    taken: list[tuple[Device, Lock]] = []
    for device in devices():
        lock = device_lock(device)
        if len(taken) < count and lock.take():
            taken.append((device, lock))
    if len(taken) == count:
        return taken
    for _, lock in taken:
        lock.free()
    return None
