"""The calibration: this computer's device timed for some seconds, so that the first run's time can be told (clock.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from studio.config import build
from studio.device import Device
from studio.errors import DeviceError
from studio.forecast import clock
from studio.home import PROJECT, write_whole
from studio.runs import launch


def calibrate(device: Device) -> None:
    """Time a small model there and back in a process of its own (some seconds), which is set up as a trainer's is, and keep the result in home.

    Raises DeviceError.
    """
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "studio.worker.calibrate", device.kind, str(device.bf16).lower()], cwd=PROJECT, stdin=subprocess.DEVNULL,
                          env=os.environ | launch.environment(build({"data": {"train": "none.json"}})), capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason"])[-1][:200]
        raise DeviceError(f"{device.name} could not be timed: {reason}", "Estimates use its data sheet.", "device")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    start = time.monotonic() - began - found.pop("seconds")
    write_whole(clock.calibration_file(device), json.dumps({**found, "start": round(start, 1), "device": device.name}))
