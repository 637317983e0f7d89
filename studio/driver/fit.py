"""Whether the installed torch can use a card that the driver shows; if not, why, and what to install.

Two reasons are read from torch's files and the driver: a torch for the CPU only, and a driver too old for torch's
CUDA. The others only torch knows: a separate process asks it (worker/torch_devices.py), and its answer is stored
until torch, driver or card change.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from studio import child_process, credentials, json_text
from studio.driver import nvidia
from studio.driver.build import Build, build, install
from studio.errors import DeviceError, reason_of
from studio.home import PROJECT, subfolder, write_atomic

if TYPE_CHECKING:
    from studio.device import Device

WORKER = "studio.worker.torch_devices"
ANSWER_TIMEOUT = 120  # seconds torch may take to list its devices
ASK_INTERVAL = 60  # seconds after which torch is asked again if it found no device
# torch 2.13's wheels: index, CUDA version, oldest driver (NVIDIA's CUDA compatibility table), oldest and newest compute
# capability.
WHEELS = (("cu130", (13, 0), "580.65", (7, 5), (13, 0)), ("cu126", (12, 6), "525.60", (5, 0), (9, 9)))
OLDEST_CAPABILITY = (5, 0)
CPU_INSTEAD = "To train on the CPU meanwhile, start the studio with STUDIO_DEVICE=cpu before the command."


class Misfit(NamedTuple):
    """reason: "missing", "build", "driver", "architecture" or "other"; text, hint: for people."""

    reason: str
    text: str
    hint: str


def refuse(device: Device) -> None:
    """Raise DeviceError if torch cannot use the device. Reasons that may be temporary are left to the trainer."""
    problem = misfit(device)
    if problem and problem.reason != "other":
        raise DeviceError(problem.text, problem.hint, "device", "device")


def misfit(device: Device) -> Misfit | None:
    """Why torch cannot use the device, as far as known without starting it; None if no reason is known."""
    installed = build()
    if installed is None:
        return Misfit("missing", "torch is not installed.", f"Install it: {install(device.traits.index)}")
    if not device.traits.cards:
        return None
    driver = nvidia.driver() if device.kind == "cuda" else nvidia.Driver(None, None)
    return (
        _wrong_build(device, installed, driver)
        or _driver_too_old(device, installed, driver)
        or misfit_of_answer(device, stored_answer(device), driver)
    )


def _wrong_build(device: Device, installed: Build, driver: nvidia.Driver) -> Misfit | None:
    if device.kind in installed.kinds:
        return None
    return Misfit(
        "build",
        f"The driver{_version(driver)} shows {device.name}, but the installed {installed.describe()} cannot use it.",
        _install_hint(device, driver),
    )


def _driver_too_old(device: Device, installed: Build, driver: nvidia.Driver) -> Misfit | None:
    """A driver supports all CUDA versions of its major version (NVIDIA's CUDA compatibility guide)."""
    major = int((installed.cuda or "0").partition(".")[0])
    if device.kind != "cuda" or not driver.cuda or major <= driver.cuda[0]:
        return None
    oldest = next((oldest for _, cuda, oldest, *_ in WHEELS if cuda[0] == major), "a newer one")
    return Misfit(
        "driver",
        f"The driver{_version(driver)} is too old for the installed {installed.describe()}.",
        f"Update NVIDIA's driver to {oldest} or newer and restart the computer. Or: {_install_hint(device, driver)}",
    )


def misfit_of_answer(
    device: Device, answer: dict[str, Any] | None, driver: nvidia.Driver | None = None
) -> Misfit | None:
    """Why torch cannot use the device, by its answer (worker/torch_devices.py); None if it can, or has no answer."""
    driver = driver or (nvidia.driver() if device.kind == "cuda" else nvidia.Driver(None, None))
    if not answer:
        return None
    name = f"torch {answer['version']} ({', '.join(answer['architectures']) or 'no architectures'})"
    if device.capability and answer["architectures"] and not covers(answer["architectures"], device.capability):
        capability = ".".join(map(str, device.capability))
        return Misfit(
            "architecture",
            f"The installed {name} has no code for {device.name}, whose compute capability is {capability}; the driver"
            f"{_version(driver)} shows it.",
            _install_hint(device, driver),
        )
    if answer["available"]:
        return None
    why = answer["error"] or "it does not say why"
    return Misfit(
        "other",
        f"The driver{_version(driver)} shows {device.name}, but the installed {name} finds no device: {why}.",
        "In a container, start it with the cards (docker run --gpus all). Else restart the computer, or "
        "update the driver. "
        f"{CPU_INSTEAD}",
    )


def covers(architectures: list[str], capability: tuple[int, int]) -> bool:
    """Whether kernels for these architectures run on a card: sm_80 on 8.0 to 8.9, compute_90 (PTX) on 9.0 and newer."""
    for name in architectures:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")  # 90a: for 9.0 only
        if not digits.isdigit():
            return True  # gfx942 and the like: not CUDA
        built_for = int(digits[:-1]), int(digits[-1])
        newer = built_for <= capability and (kind == "compute" or built_for[0] == capability[0])
        if built_for == capability or (newer and digits == number):
            return True
    return False


def _version(driver: nvidia.Driver) -> str:
    """ " 550.54 (CUDA up to 12.4)"."""
    cuda = f" (CUDA up to {driver.cuda[0]}.{driver.cuda[1]})" if driver.cuda else ""
    return f" {driver.version}{cuda}" if driver.version else ""


def _install_hint(device: Device, driver: nvidia.Driver) -> str:
    """A sentence on which torch to install for this card and driver."""
    if device.kind != "cuda":
        return f"Install a torch for it: {install(device.traits.index)}"
    capability = device.capability or (8, 0)
    if capability < OLDEST_CAPABILITY:
        return f"No torch of today has code for it any more. {CPU_INSTEAD}"
    fitting = [wheel for wheel in WHEELS if wheel[3] <= capability <= wheel[4]] or [WHEELS[0]]
    ready = next((wheel for wheel in fitting if not driver.cuda or wheel[1][0] <= driver.cuda[0]), None)
    if ready:
        return f"Install a torch for it: {install(ready[0])} . {CPU_INSTEAD}"
    index, cuda, oldest, *_ = fitting[-1]
    return (
        f"Update NVIDIA's driver to {oldest} or newer, restart the computer, and install a torch for CUDA "
        f"{cuda[0]}.{cuda[1]}: {install(index)} . {CPU_INSTEAD}"
    )


# -- torch's answers, stored


def stored_answer(device: Device) -> dict[str, Any] | None:
    """torch's answer for this card; None before it was asked."""
    return json_text.read_or_default(_file(device), {}) or None


def store_answer(device: Device, answer: dict[str, Any]) -> None:
    write_atomic(_file(device), json.dumps(answer))


def ask(device: Device, environment: dict[str, str]) -> dict[str, Any]:
    """Ask torch in a separate process and store the answer. environment: shows it this card. Raises DeviceError."""
    try:
        completed = subprocess.run(
            [sys.executable, "-m", WORKER],
            cwd=PROJECT,
            env={**credentials.child_environment(), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_TIMEOUT,
        )
        answer = json.loads(completed.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        hint = "Start `python -c 'import torch; print(torch.cuda.is_available())'` and read what it says."
        raise DeviceError(f"torch did not say what it sees: {reason_of(error)}.", hint, "device") from error
    store_answer(device, answer)
    return answer


def ask_in_background(device: Device, environment: dict[str, str]) -> None:
    """Ask torch in the background if it has not been asked yet; the page reads the answer at a later poll."""
    if not device.traits.cards or (stored_answer(device) or {}).get("available"):
        return
    asked = subfolder("cache") / f"{_file(device).stem}.asked"
    if asked.exists() and time.time() - asked.stat().st_mtime < ASK_INTERVAL:
        return
    asked.touch()
    with open(asked, "wb") as output:
        words = ["-m", WORKER, str(_file(device))]
        child_process.begin_apart(words, output, output, env={**credentials.child_environment(), **environment})


def _file(device: Device) -> Path:
    """The answer's file, one per torch, driver and card."""
    key = [*(build() or ()), sys.executable, *nvidia.driver(), device.kind, device.name, device.uuid]
    return subfolder("cache") / f"torch-sees-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.json"
