"""Whether the installed torch can use a card that its driver shows; where it cannot, which of the reasons it is, and what to install.

Two of the reasons can be read off torch's files and the driver: a torch for the CPU, and a driver too old for torch's CUDA. The others only
torch itself knows: a process of its own asks it (worker/torch_devices.py), and its answer is kept until torch, driver or card change.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from studio.driver import nvidia
from studio.driver.build import Build, build, install
from studio.errors import DeviceError
from studio.home import PROJECT, subfolder, write_atomic

if TYPE_CHECKING:
    from studio.device import Device

PATIENCE = 120  # seconds that torch is given to say what it sees
AGAIN = 60  # seconds after which torch is asked once more, where it saw no device
# torch 2.13's wheels: their CUDA, the oldest driver for it (NVIDIA's CUDA compatibility table), the architectures they have code for.
WHEELS = (("cu130", (13, 0), "580.65", (7, 5), (13, 0)), ("cu126", (12, 6), "525.60", (5, 0), (9, 9)))
OLDEST = (5, 0)
CPU_INSTEAD = "To train on the CPU meanwhile, start the studio with STUDIO_DEVICE=cpu before the command."


class Misfit(NamedTuple):
    """reason: "missing", "build", "driver", "architecture" or "other"; text, hint: for people."""

    reason: str
    text: str
    hint: str


def refuse(device: Device) -> None:
    """Raise DeviceError where the installed torch is known not to be able to use the device. What may have passed since is left to the trainer."""
    found = misfit(device)
    if found and found.reason != "other":
        raise DeviceError(found.text, found.hint, "device", "device")


def misfit(device: Device) -> Misfit | None:
    """Why torch cannot use the device, as far as is known without starting it; None where nothing speaks against it."""
    made = build()
    if made is None:
        return Misfit("missing", "torch is not installed.", f"Install it: {install(device.traits.index)}")
    if not device.traits.cards:
        return None
    known = nvidia.driver() if device.kind == "cuda" else nvidia.Driver(None, None)
    return (
        _unbuilt(device, made, known)
        or _too_old(device, made, known)
        or misfit_of_answer(device, stored_answer(device), known)
    )


def _unbuilt(device: Device, made: Build, known: nvidia.Driver) -> Misfit | None:
    if device.kind in made.kinds:
        return None
    return Misfit(
        "build",
        f"The driver{_version(known)} shows {device.name}, but the installed {made.describe()} cannot use it.",
        _instead(device, known),
    )


def _too_old(device: Device, made: Build, known: nvidia.Driver) -> Misfit | None:
    """CUDA's minor versions go together with every driver of the same major version (NVIDIA's CUDA compatibility guide)."""
    major = int((made.cuda or "0").partition(".")[0])
    if device.kind != "cuda" or not known.cuda or major <= known.cuda[0]:
        return None
    least = next((driver for _, cuda, driver, *_ in WHEELS if cuda[0] == major), "a newer one")
    return Misfit(
        "driver",
        f"The driver{_version(known)} is too old for the installed {made.describe()}.",
        f"Update NVIDIA's driver to {least} or newer and restart the computer. Or: {_instead(device, known)}",
    )


def misfit_of_answer(device: Device, said: dict[str, Any] | None, known: nvidia.Driver | None = None) -> Misfit | None:
    """Why torch cannot use the device, by what it said of itself (worker/torch_devices.py); None where it can, or has said nothing yet."""
    known = known or (nvidia.driver() if device.kind == "cuda" else nvidia.Driver(None, None))
    if not said:
        return None
    name = f"torch {said['version']} ({', '.join(said['architectures']) or 'no architectures'})"
    if device.capability and said["architectures"] and not covers(said["architectures"], device.capability):
        wanted = ".".join(map(str, device.capability))
        return Misfit(
            "architecture",
            f"The installed {name} has no code for {device.name}, whose compute capability is {wanted}; the driver"
            f"{_version(known)} shows it.",
            _instead(device, known),
        )
    if said["available"]:
        return None
    why = said["error"] or "it does not say why"
    return Misfit(
        "other",
        f"The driver{_version(known)} shows {device.name}, but the installed {name} finds no device: {why}.",
        f"In a container, start it with the cards (docker run --gpus all). Else restart the computer, or update the driver. {CPU_INSTEAD}",
    )


def covers(architectures: list[str], capability: tuple[int, int]) -> bool:
    """Whether kernels for these architectures run on a card: sm_80 on 8.0 and later ones of 8, compute_90 (PTX) on 9.0 and all newer."""
    for name in architectures:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")  # 90a: for 9.0 alone
        if not digits.isdigit():
            return True  # gfx942 and the like: not CUDA's
        made = int(digits[:-1]), int(digits[-1])
        later = made <= capability and (kind == "compute" or made[0] == capability[0])
        if made == capability or later and digits == number:
            return True
    return False


def _version(known: nvidia.Driver) -> str:
    """ " 550.54 (CUDA up to 12.4)"."""
    cuda = f" (CUDA up to {known.cuda[0]}.{known.cuda[1]})" if known.cuda else ""
    return f" {known.version}{cuda}" if known.version else ""


def _instead(device: Device, known: nvidia.Driver) -> str:
    """Which torch to install for this card and driver."""
    if device.kind != "cuda":
        return f"Install a torch for it: {install(device.traits.index)}"
    capability = device.capability or (8, 0)
    if capability < OLDEST:
        return f"No torch of today has code for it any more. {CPU_INSTEAD}"
    fitting = [wheel for wheel in WHEELS if wheel[3] <= capability <= wheel[4]] or [WHEELS[0]]
    ready = next((wheel for wheel in fitting if not known.cuda or wheel[1][0] <= known.cuda[0]), None)
    if ready:
        return f"Install a torch for it: {install(ready[0])} . {CPU_INSTEAD}"
    index, cuda, driver, *_ = fitting[-1]
    return (
        f"Update NVIDIA's driver to {driver} or newer, restart the computer, and install a torch for CUDA {cuda[0]}.{cuda[1]}: {install(index)} . "
        f"{CPU_INSTEAD}"
    )


# -- what torch says, kept


def stored_answer(device: Device) -> dict[str, Any] | None:
    """What torch said of this card; None before it was asked."""
    try:
        return json.loads(_file(device).read_text())
    except (OSError, ValueError):
        return None


def store_answer(device: Device, said: dict[str, Any]) -> None:
    write_atomic(_file(device), json.dumps(said))


def ask(device: Device, environment: dict[str, str]) -> dict[str, Any]:
    """Ask torch in a process of its own, which takes some seconds, and keep the answer. environment: what lets it see this card alone.

    Raises DeviceError where it comes to no answer."""
    try:
        done = subprocess.run(
            _command(),
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        said = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise DeviceError(
            f"torch did not say what it sees: {type(error).__name__}.",
            "Start `python -c 'import torch; print(torch.cuda.is_available())'` and read what it says.",
            "device",
        ) from error
    store_answer(device, said)
    return said


def ask_in_background(device: Device, environment: dict[str, str]) -> None:
    """Have torch asked while we go on, where it was not asked yet; the page hears of it at one of its next looks."""
    if not device.traits.cards or (stored_answer(device) or {}).get("available"):
        return
    begun = subfolder("cache") / f"{_file(device).stem}.asked"
    if begun.exists() and time.time() - begun.stat().st_mtime < AGAIN:
        return
    begun.touch()
    with open(begun, "wb") as output:
        subprocess.Popen(
            [*_command(), str(_file(device))],
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _command() -> list[str]:
    return [sys.executable, "-m", "studio.worker.torch_devices"]


def _file(device: Device) -> Path:
    """One a torch, a driver and a card."""
    made = build()
    named = [*(made or ()), sys.executable, *nvidia.driver(), device.kind, device.name, device.uuid]
    return subfolder("cache") / f"torch-sees-{hashlib.sha256(repr(named).encode()).hexdigest()[:16]}.json"
