"""The calibration: this computer's device, timed for half a minute for the forecast of a first run (duration.py)."""

from __future__ import annotations

import json
import time

from studio import auto, child_process, credentials
from studio.config import build
from studio.device import Device, environment
from studio.driver import fit
from studio.errors import DeviceError
from studio.forecast import duration
from studio.home import write_atomic
from studio.runs import claim, launch


def calibrate(device: Device) -> duration.Calibration:
    """Time a small model forwards and backwards in a process set up as a trainer's, and store the result.

    The device is claimed meanwhile: a run that is ordered waits. Raises DeviceError, also when a run has the device.
    """
    fit.refuse(device)
    order = build({"data": {"train": "none.json"}})
    variables = credentials.child_environment() | launch.environment(order) | environment([device])
    lock = claim.device_lock(device)
    if not lock.acquire():
        hint = "Time it when no run is going."
        raise DeviceError(f"{device.name} is in use: timed beside a run, it would look slow.", hint, "device")
    began = time.monotonic()
    try:
        printed = child_process.output_of(
            "-m", "studio.worker.calibrate", device.traits.torch, auto.precision(order, device), env=variables
        )
    except child_process.ProcessFailed as error:
        hint = "Estimates use its data sheet."
        raise DeviceError(f"{device.name} could not be timed: {str(error)[:200]}", hint, "device") from error
    finally:
        lock.release()
    result = json.loads(child_process.last_line(printed))
    start = time.monotonic() - began - result.pop("seconds")
    file = duration.calibration_file(device)
    write_atomic(file, json.dumps({**result, "start": round(start, 1), "device": device.name}))
    return duration.Calibration(result["rates"], result["launch"], start)
