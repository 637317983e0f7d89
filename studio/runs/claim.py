"""Device locks: acquired by a run's supervisor, inherited by its trainer, released once all of them are gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from studio.device import Device, devices, visible
from studio.errors import DeviceError
from studio.events import Lock
from studio.home import slug, subfolder


def device_lock(device: Device) -> Lock:
    """The lock of the run that uses the device."""
    return Lock(subfolder("locks") / f"device-{slug(device_key(device))}")


@contextmanager
def held_device(hint: str) -> Iterator[None]:
    """Holds the first device's lock. Raises DeviceError, with the hint, where a run or another job has it."""
    lock = device_lock(devices()[0])
    if not lock.acquire():
        raise DeviceError(f"{devices()[0].name} is in use: a run or an examination has it.", hint, "device")
    try:
        yield
    finally:
        lock.release()


def device_key(device: Device) -> str:
    """The device's name, the same in all processes even if they see different cards; its kind if there is only one."""
    if not device.traits.cards:
        return device.kind
    return device.uuid or visible(device)


def device_locks() -> list[Lock]:
    return [device_lock(device) for device in devices()]


def take_devices(count: int) -> list[tuple[Device, Lock]] | None:
    """Lock `count` free devices, or all existing ones if fewer. None, and no lock, if too few are free."""
    count = min(count, len(devices()))
    claimed: list[tuple[Device, Lock]] = []
    for device in devices():
        lock = device_lock(device)
        if len(claimed) < count and lock.acquire():
            claimed.append((device, lock))
    if len(claimed) == count:
        return claimed
    for _, lock in claimed:
        lock.release()
    return None
