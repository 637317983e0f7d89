"""The doctor: does everything the studio does on this computer's device, with small random models, and says in plain words what works.

Each part is done by the very modules that train and chat (worker/doctor.py starts them), in a process of its own that is ended at its limit:
a part that crashes or hangs does not stop the others. The report is kept in doctor/ in home, for a user to send along with a question.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from studio import device, process
from studio.config import build as order_of
from studio.driver import fit, nvidia
from studio.driver.build import build
from studio.errors import DeviceError, OrderError
from studio.events import Lock, is_locked
from studio.home import PROJECT, subfolder, write_atomic
from studio.methods import METHODS
from studio.runs import claim, launch

Tell = Callable[[dict[str, Any]], None]
WORKER = "studio.worker.doctor"
LIMIT = 560.0  # seconds of the whole; what has not begun by then is left out
GRACE = 20.0
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "trl", "gradio", "nvidia-ml-py")


class Part(NamedTuple):
    """part: its name for --only; name: for people; limit: seconds; group: a name for several."""

    part: str
    name: str
    limit: float
    group: str = ""


PARTS = (
    Part("devices", "Devices, as driver and torch see them", 120),
    *(Part(name, f"{METHODS[name].label}: trains as on the CPU in float32", 240, "methods") for name in METHODS),
    Part("resume", "Stop and resume", 180),
    Part("chat", "Chat, unload, memory returned", 240),
    *(
        Part(f"memory-{name}", f"{METHODS[name].label}: memory as estimated", 240, "memory")
        for name in ("lora", "qlora", "full")
    ),
    Part("speed", "Speed", 180),
)


def chosen(only: Sequence[str] = ()) -> list[Part]:
    """The parts meant by --only, each or by group; all without. Raises OrderError for one that there is not."""
    known = {part.part for part in PARTS} | {part.group for part in PARTS if part.group}
    for name in only:
        if name not in known:
            raise OrderError(
                f"The doctor has no part {name!r}.",
                f"Parts: {', '.join(part.part for part in PARTS)}; groups: methods, memory.",
                "--only",
            )
    return [part for part in PARTS if not only or {part.part, part.group} & set(only)]


def check(only: Sequence[str] = (), short: bool = False, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Do the parts, one after the other, and keep the report. tell: is given every part when it begins (state "going") and when it is done.

    {devices: [{kind, name, memory, driver, torch}], usable, notices, parts: [{part, name, state: ok, failed or skipped, seconds, figures, why}],
    seconds, short, versions, report}. Raises OrderError for a part that there is not, DeviceError while a run or another doctor has the device.
    """
    parts, first = chosen(only), device.devices()[0]
    alive, lock = Lock(_lock()), claim.device_lock(first)
    if not alive.acquire():
        raise DeviceError(
            "The doctor is at work already.", "Wait until it is done; its progress stands on the Runs page.", "doctor"
        )
    try:
        if not lock.acquire():
            raise DeviceError(
                f"{first.name} is in use: what is examined beside a run says little.",
                "Start the doctor when no run is going.",
                "device",
            )
        try:
            answer = _examined(parts, short, tell)
        finally:
            lock.release()
        file = save_report(answer)
        answer["report"] = str(file)
        write_atomic(_latest(), json.dumps(answer, ensure_ascii=False))
        return answer
    finally:
        alive.release()


def _examined(parts: list[Part], short: bool, tell: Tell) -> dict[str, Any]:
    began, seen = time.monotonic(), device.scan_devices()
    first = seen.devices[0]
    answer: dict[str, Any] = {
        "devices": _devices(seen.devices),
        "usable": True,
        "notices": [f"{note.text} {note.hint}".strip() for note in seen.notices],
        "parts": [],
        "seconds": 0.0,
        "short": short,
        "versions": versions(),
    }

    def say(part: dict[str, Any]) -> None:
        write_atomic(
            _latest(),
            json.dumps(
                {**answer, "doing": part["name"] if part["state"] == "going" else None, "of": len(parts)},
                ensure_ascii=False,
            ),
        )
        tell(part)

    with tempfile.TemporaryDirectory(dir=subfolder("doctor"), prefix="work-") as work:
        for done in _done(parts, short, Path(work), say):
            answer["parts"].append(done)
            said = done["figures"].get("torch") if done["part"] == "devices" else None
            if said:
                _name_torchs(answer["devices"], said)
                if first.traits.cards:
                    fit.store_answer(first, said)
            say(done)
    failed = any(part["part"] == "devices" and part["state"] == "failed" for part in answer["parts"])
    return answer | {"usable": fit.misfit(first) is None and not failed, "seconds": round(time.monotonic() - began, 1)}


def save_report(answer: dict[str, Any]) -> Path:
    """The report as a file."""
    file = subfolder("doctor") / f"report-{time.strftime('%Y-%m-%d-%H%M%S')}.json"
    write_atomic(file, json.dumps(answer, indent=1, ensure_ascii=False))
    return file


def latest() -> dict[str, Any]:
    """{state: none, going, done or cut off, answer}: how the newest one stands, from this page or a terminal. answer has `doing` and `of` meanwhile."""
    going = is_locked(_lock())
    try:
        answer = json.loads(_latest().read_text())
    except (OSError, ValueError):
        return {"state": "going" if going else "none", "answer": None}
    return {"state": "done" if "report" in answer else "going" if going else "cut off", "answer": answer}


def _latest() -> Path:
    return subfolder("doctor") / "latest.json"


def _lock() -> Path:
    return subfolder("locks") / "doctor"


def versions() -> dict[str, str]:
    """Of the system, Python, the driver and the libraries: what a reader of the report asks first."""
    found = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "driver": nvidia.driver().version or "none",
    }
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    chosen = {
        name: os.environ[name]
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", device.DEVICE_VARIABLE)
        if name in os.environ
    }
    return found | chosen


def _devices(found: list[device.Device]) -> list[dict[str, Any]]:
    made, version = build(), nvidia.driver().version
    driver = {
        "cuda": f"NVIDIA {version or '?'}",
        "rocm": "amdgpu",
        "xpu": "i915 or xe",
        "mps": f"macOS {platform.mac_ver()[0]}",
    }
    return [
        {
            "kind": one.kind,
            "name": one.name,
            "memory": one.memory,
            "driver": driver.get(one.kind, "none needed"),
            "torch": made.describe() if made else "not installed",
        }
        for one in found
    ]


def _name_torchs(devices: list[dict[str, Any]], said: dict[str, Any]) -> None:
    """Beside what torch is made for, the name it has for each device, where it sees as many."""
    if len(said["devices"]) == len(devices):
        for one, known in zip(devices, said["devices"], strict=True):
            one["torch"] = f"{one['torch']}: {known['name']}"


# -- the worker


def _done(parts: list[Part], short: bool, work: Path, tell: Tell) -> Iterator[dict[str, Any]]:
    """Each part's outcome as the worker tells it; where the worker ends without a word, the rest fails with its last words."""
    left, log = {part.part: part for part in parts}, work / "log.txt"
    spec = {
        "parts": [[part.part, part.limit] for part in parts],
        "short": short,
        "work": str(work),
        "until": time.time() + LIMIT,
    }
    with open(log, "wb") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-m", WORKER, json.dumps(spec)],
            cwd=PROJECT,
            env=_environment(work),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        with process.kill_after(worker, LIMIT + GRACE):
            for line in worker.stdout or ():
                told = json.loads(line)
                if told["state"] == "going":
                    tell({"part": told["part"], "name": left[told["part"]].name, "state": "going"})
                else:
                    yield {
                        "part": told["part"],
                        "name": left.pop(told["part"]).name,
                        **{key: told[key] for key in ("state", "seconds", "figures", "why")},
                    }
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)  # it leads a session of its own
        worker.wait()
    last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1][:400]
    for part in left.values():
        yield {
            "part": part.part,
            "name": part.name,
            "state": "failed",
            "seconds": 0.0,
            "figures": {},
            "why": f"The worker ended: {last}",
        }


def _environment(work: Path) -> dict[str, str]:
    """As a run's trainer has it, in a home of its own."""
    home = work / "home"
    home.mkdir()
    settled = launch.environment(order_of({"data": {"train": "none.json"}}))
    return {
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        **os.environ,
        **settled,
        **device.default_environment(),
        "STUDIO_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def tidy() -> None:
    """Remove what a doctor that was killed left behind."""
    for folder in subfolder("doctor").glob("work-*"):
        shutil.rmtree(folder, ignore_errors=True)
