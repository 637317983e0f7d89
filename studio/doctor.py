"""The doctor: checks on this computer's device, with small random models, that everything the studio does works.

Each part is done by the modules that train and chat (started by worker/doctor.py) in a process of its own with a time
limit: a part that crashes or hangs does not stop the others. The report is kept in doctor/ in home, to be sent along
with a question.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from studio import child_process, credentials, device, json_text, process, program
from studio.config import build as order_of
from studio.driver import fit, nvidia
from studio.driver.build import build
from studio.errors import DeviceError, OrderError
from studio.events import Lock, is_locked
from studio.home import subfolder, write_atomic
from studio.methods import METHODS
from studio.registry import attributes
from studio.runs import claim, launch
from studio.stages import STAGES

Progress = Callable[[dict[str, Any]], None]
WORKER = "studio.worker.doctor"
LIMIT = 560.0  # seconds in all; parts that have not begun by then are skipped
GRACE = 20.0
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "trl", "gradio", "nvidia-ml-py")


class Part(NamedTuple):
    """part: its name for --only. name: its name on the page. limit: seconds. group: a name for several parts."""

    part: str
    name: str
    limit: float
    group: str = ""


COMPARED, WRITES = "trains as on the CPU in float32", "writes answers and learns from them"
PARTS = (
    Part("devices", "Devices, as driver and torch see them", 120),
    *(Part(name, f"{METHODS[name].label}: {COMPARED}", 240, "methods") for name in METHODS),
    *(
        Part(name, f"{kind.label}: {WRITES if kind.generates else COMPARED}", 240, "stages")
        for name, kind in STAGES.items()
        if kind.examples != "answers"
    ),
    Part("resume", "Stop and resume", 180),
    Part("chat", "Chat, unload, memory returned", 240),
    *(
        Part(f"memory-{name}", f"{METHODS[name].label}: memory as estimated", 240, "memory")
        for name in ("lora", "qlora", "full")
    ),
    Part("speed", "Speed", 180),
)


def select_parts(only: Sequence[str] = ()) -> list[Part]:
    """The parts named by --only, one by one or by group; all by default. Raises OrderError for an unknown one."""
    known = {part.part for part in PARTS} | {part.group for part in PARTS if part.group}
    for name in only:
        if name not in known:
            hint = f"Parts: {', '.join(part.part for part in PARTS)}; groups: methods, stages, memory."
            raise OrderError(f"The doctor has no part {name!r}.", hint, "--only")
    return [part for part in PARTS if not only or {part.part, part.group} & set(only)]


def check(only: Sequence[str] = (), short: bool = False, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Run the parts one after the other and save the report.

    progress: called with every part when it begins (state "going") and when it ends. Returns {devices: [{kind, name,
    memory, driver, torch}], usable, notices, parts: [{part, name, state (ok, failed, skipped), seconds, figures, why}],
    seconds, short, versions, report}. Raises OrderError for an unknown part, DeviceError while a run or another doctor
    has the device.
    """
    parts, first = select_parts(only), device.devices()[0]
    alive, lock = Lock(_lock()), claim.device_lock(first)
    if not alive.acquire():
        hint = "Wait until it is done; its progress stands on the Runs page."
        raise DeviceError("The doctor is at work already.", hint, "doctor")
    try:
        if not lock.acquire():
            hint = "Start the doctor when no run is going."
            raise DeviceError(f"{first.name} is in use: what is examined beside a run says little.", hint, "device")
        try:
            answer = _check_parts(parts, short, progress)
        finally:
            lock.release()
        file = save_report(answer)
        answer["report"] = str(file)
        write_atomic(_latest(), json.dumps(answer, ensure_ascii=False))
        return answer
    finally:
        alive.release()


def _check_parts(parts: list[Part], short: bool, progress: Progress) -> dict[str, Any]:
    started, detected = time.monotonic(), device.scan_devices()
    first = detected.devices[0]
    answer: dict[str, Any] = {
        "devices": _devices(detected.devices),
        "usable": True,
        "notices": [f"{note.text} {note.hint}".strip() for note in detected.notices],
        "parts": [],
        "seconds": 0.0,
        "short": short,
        "versions": versions(),
    }

    def publish(part: dict[str, Any]) -> None:
        doing = part["name"] if part["state"] == "going" else None
        write_atomic(_latest(), json.dumps({**answer, "doing": doing, "of": len(parts)}, ensure_ascii=False))
        progress(part)

    with tempfile.TemporaryDirectory(dir=subfolder("doctor"), prefix="work-") as work:
        for outcome in _outcomes(parts, short, Path(work), publish):
            answer["parts"].append(outcome)
            seen_by_torch = outcome["figures"].get("torch") if outcome["part"] == "devices" else None
            if seen_by_torch:
                _add_torch_names(answer["devices"], seen_by_torch)
                if first.traits.cards:
                    fit.store_answer(first, seen_by_torch)
            publish(outcome)
    failed = any(part["part"] == "devices" and part["state"] == "failed" for part in answer["parts"])
    usable = fit.misfit(first) is None and not failed
    return answer | {"usable": usable, "seconds": round(time.monotonic() - started, 1)}


def save_report(answer: dict[str, Any]) -> Path:
    """Write the report to a file of its own."""
    file = subfolder("doctor") / f"report-{time.strftime('%Y-%m-%d-%H%M%S')}.json"
    write_atomic(file, json.dumps(answer, indent=1, ensure_ascii=False))
    return file


def latest() -> dict[str, Any]:
    """{state (none, going, done, cut off), answer} of the newest check. While going, answer has `doing` and `of`."""
    going = is_locked(_lock())
    answer = json_text.read_or_default(_latest(), {})
    if not answer:
        return {"state": "going" if going else "none", "answer": None}
    if "report" in answer:
        return {"state": "done", "answer": answer}
    return {"state": "going" if going else "cut off", "answer": answer}


def _latest() -> Path:
    return subfolder("doctor") / "latest.json"


def _lock() -> Path:
    return subfolder("locks") / "doctor"


def versions() -> dict[str, str]:
    """The versions of the system, Python, the driver and the libraries, and the variables that choose a device."""
    installed = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "driver": nvidia.driver().version or "none",
        **dict.fromkeys(PACKAGES, "not installed"),
        **program.versions(*PACKAGES),
    }
    variables = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", device.DEVICE_VARIABLE)
    return installed | {name: os.environ[name] for name in variables if name in os.environ}


def _devices(devices: list[device.Device]) -> list[dict[str, Any]]:
    torch_build, version = build(), nvidia.driver().version
    driver = {
        "cuda": f"NVIDIA {version or '?'}",
        "rocm": "amdgpu",
        "xpu": "i915 or xe",
        "mps": f"macOS {platform.mac_ver()[0]}",
    }
    return [
        {
            **attributes(entry, "kind", "name", "memory"),
            "driver": driver.get(entry.kind, "none needed"),
            "torch": torch_build.describe() if torch_build else "not installed",
        }
        for entry in devices
    ]


def _add_torch_names(devices: list[dict[str, Any]], seen_by_torch: dict[str, Any]) -> None:
    """Add torch's name of each device, where torch sees as many as the driver."""
    if len(seen_by_torch["devices"]) == len(devices):
        for entry, torch_device in zip(devices, seen_by_torch["devices"], strict=True):
            entry["torch"] = f"{entry['torch']}: {torch_device['name']}"


# -- the worker


def _outcomes(parts: list[Part], short: bool, work: Path, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yield each part's outcome from the worker. If the worker dies, the rest fails with the last line of its log."""
    left, log = {part.part: part for part in parts}, work / "log.txt"
    worker = _start(parts, short, work, log)
    try:
        with process.kill_after(worker, LIMIT + GRACE):
            for line in worker.stdout or ():
                event = json.loads(line)
                name = event["part"]
                if event["state"] == "going":
                    progress({"part": name, "name": left[name].name, "state": "going"})
                else:
                    keys = ("state", "seconds", "figures", "why")
                    yield {"part": name, "name": left.pop(name).name, **{key: event[key] for key in keys}}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    last = child_process.last_line(log.read_text(errors="replace"), "it said nothing")[:400]
    failed = {"state": "failed", "seconds": 0.0, "figures": {}, "why": f"The worker ended: {last}"}
    for part in left.values():
        yield {"part": part.part, "name": part.name, **failed}


def _start(parts: list[Part], short: bool, work: Path, log: Path) -> subprocess.Popen[str]:
    """The worker, which leads a session of its own; it writes outcomes to stdout and its log to `log`."""
    limits = [[part.part, part.limit] for part in parts]
    spec = {"parts": limits, "short": short, "work": str(work), "until": time.time() + LIMIT}
    with open(log, "wb") as errors:
        words = ["-m", WORKER, json.dumps(spec)]
        return child_process.begin_apart(words, subprocess.PIPE, errors, env=_environment(work), text=True)


def _environment(work: Path) -> dict[str, str]:
    """The environment of a run's trainer, with a home of its own."""
    home = work / "home"
    home.mkdir()
    return {
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        **credentials.child_environment(),
        **launch.environment(order_of({"data": {"train": "none.json"}})),
        **device.default_environment(),
        "STUDIO_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def tidy() -> None:
    """Remove the work folders of doctors that were killed."""
    for folder in subfolder("doctor").glob("work-*"):
        shutil.rmtree(folder, ignore_errors=True)
