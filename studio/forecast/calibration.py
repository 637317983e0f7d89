"""The calibration: this computer's device timed for some seconds, so that the first run's time can be told
(duration.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from studio import auto
from studio.config import build
from studio.device import Device, environment
from studio.driver import fit
from studio.errors import DeviceError
from studio.forecast import duration
from studio.home import PROJECT, write_atomic
from studio.runs import claim, launch


def calibrate(device: Device) -> duration.Calibration:
    """Time a small model there and back in a process of its own (half a minute), which is set up as a trainer's is, and
    keep the result in home.

    The device is claimed meanwhile: a run that is ordered waits. Raises DeviceError, also when a run has the device.

    """
    fit.refuse(device)
    lock = claim.device_lock(device)
    if not lock.acquire():
        raise DeviceError(
            f"{device.name} is in use: timed beside a run, it would look slow.",
            "Time it when no run is going.",
            "device",
        )
    try:
        return _timed(device)
    finally:
        lock.release()


def _timed(device: Device) -> duration.Calibration:
    began = time.monotonic()
    order = build({"data": {"train": "none.json"}})
    words = [sys.executable, "-m", "studio.worker.calibrate", device.traits.torch, auto.precision(order, device)]
    resolved = os.environ | launch.environment(order) | environment([device])
    done = subprocess.run(words, cwd=PROJECT, stdin=subprocess.DEVNULL, env=resolved, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason"])[-1][:200]
        raise DeviceError(f"{device.name} could not be timed: {reason}", "Estimates use its data sheet.", "device")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    start = time.monotonic() - began - found.pop("seconds")
    write_atomic(
        duration.calibration_file(device), json.dumps({**found, "start": round(start, 1), "device": device.name})
    )
    return duration.Calibration(found["rates"], found["launch"], start)
