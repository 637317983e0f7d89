"""A device is claimed by a lock that the run's supervisor takes and its trainer inherits: free only when all of them are gone."""

from __future__ import annotations

from studio.device import Device, devices, visible
from studio.events import Lock
from studio.home import slug, subfolder


def device_lock(device: Device) -> Lock:
    """Held by the run that uses the device, its trainer's processes included."""
    return Lock(subfolder("locks") / f"device-{slug(visible_name(device))}")


def visible_name(device: Device) -> str:
    """What names the device, so that two pages that see different cards still mean the same one; its kind where there is only one of it."""
    if not device.traits.cards:
        return device.kind
    return device.uuid or visible(device)


def device_locks() -> list[Lock]:
    return [device_lock(device) for device in devices()]


def take_devices(count: int) -> list[tuple[Device, Lock]] | None:
    """So many free devices, locked; all or none. More than there are: all that there are, for the trainer to refuse in words."""
    count = min(count, len(devices()))
    taken: list[tuple[Device, Lock]] = []
    for device in devices():
        lock = device_lock(device)
        if len(taken) < count and lock.acquire():
            taken.append((device, lock))
    if len(taken) == count:
        return taken
    for _, lock in taken:
        lock.release()
    return None
