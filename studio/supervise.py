"""python -m studio.supervise RUN-FOLDER: the small parent of one run's trainer. No torch, no gradio.

It holds the run's lock and the device's, starts the trainer, keeps its output in log.txt, writes down how it ended when
the trainer could not, and then starts the next queued run.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from studio import queue
from studio.diagnosis import diagnose
from studio.events import Lock
from studio.home import PROJECT
from studio.log import Log
from studio.run import Run

TERM_AFTER = float(os.environ.get("STUDIO_STOP_TERM", 60))  # seconds from the stop request to SIGTERM
KILL_AFTER = 10.0  # from SIGTERM to SIGKILL


def supervise(run: Run) -> None:
    """Carry out one attempt of a run, from lock to end line, and move the queue on."""
    lock, device = Lock(run.lock), queue.device_lock()
    if not lock.take(wait=2):
        return  # somebody else supervises it
    try:
        if not device.take(wait=5):
            return  # the device went to another run; this one stays queued
        attempt = 1 + max((event.get("attempt", 0) for event in run.events()), default=0)
        run.append("phase", name="starting", attempt=attempt)
        code = _watch(run, _launch(run, attempt))
        _write_end(run, attempt, code)
        device.free()
    finally:
        lock.free()
    queue.advance()


def _launch(run: Run, attempt: int) -> subprocess.Popen[bytes]:
    """The trainer in a process group of its own, that dies with this process, its output in a pipe we alone read."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "STUDIO_ATTEMPT": str(attempt), "TOKENIZERS_PARALLELISM": "false",
                   "PYTORCH_CUDA_ALLOC_CONF": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")}
    return subprocess.Popen([sys.executable, "-m", "studio.worker.train", str(run.folder)], cwd=PROJECT, env=environment,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            process_group=0, preexec_fn=_die_with_parent)


def _die_with_parent() -> None:
    """Linux: SIGKILL for the trainer when the supervisor is gone (prctl PR_SET_PDEATHSIG = 1)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _watch(run: Run, trainer: subprocess.Popen[bytes]) -> int:
    """Copy output to the log and see to stop requests until the trainer is gone. Returns its exit code (negative: signal)."""
    asked = terminated = None
    with Log(run.log) as log, selectors.DefaultSelector() as selector:
        selector.register(trainer.stdout, selectors.EVENT_READ)
        while True:
            for _ in selector.select(timeout=0.3):
                data = os.read(trainer.stdout.fileno(), 65536)
                if data:
                    log.write(data)
                else:
                    selector.unregister(trainer.stdout)
            if trainer.poll() is not None and (not selector.get_map() or not selector.select(timeout=0)):
                break
            now = time.monotonic()
            if asked is None and run.stop_file.exists():
                asked = now
            if asked is not None and terminated is None and now - asked > TERM_AFTER:
                terminated = now
                _signal(trainer, signal.SIGTERM)
            if terminated is not None and now - terminated > KILL_AFTER:
                _signal(trainer, signal.SIGKILL)
    _signal(trainer, signal.SIGKILL)  # whatever it left behind in its group
    return trainer.returncode


def _signal(trainer: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(trainer.pid, number)
    except ProcessLookupError:
        pass


def _write_end(run: Run, attempt: int, code: int) -> None:
    """The end line, unless the trainer wrote it."""
    diary: list[dict[str, Any]] = run.events()
    if any(event["kind"] == "end" and event.get("attempt") == attempt for event in diary):
        return
    if run.stop_file.exists():
        run.append("end", state="stopped", attempt=attempt, code=code, cause="Stopped as asked.",
                   action="Resume it to go on from its last checkpoint.")
        return
    cause = diagnose(code, run.log)
    run.append("end", state="failed", attempt=attempt, code=code, cause=cause.what, action=cause.action)


def main(arguments: list[str]) -> int:
    """--detach: fork into a session of its own and return at once, so that nobody has to reap us."""
    detach = "--detach" in arguments
    run = Run(Path([word for word in arguments if word != "--detach"][0]).resolve())
    if detach:
        if os.fork():
            return 0
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervise(run)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
