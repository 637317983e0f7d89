"""python -m studio.supervise RUN-FOLDER: the parent process of one run's trainer. No torch, no gradio.

It locks devices and the run, executes one attempt (runs/attempt.py), and then starts the next queued run.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from studio import crash, credentials, process, queue
from studio.errors import StudioError, reason_of
from studio.events import Lock
from studio.run import Run
from studio.runs import claim, end_hooks, launch
from studio.runs.attempt import Attempt
from studio.talk import chat


def supervise(run: Run, up: int | None = None) -> int:
    """Execute one attempt of a run, from lock to end event, and advance the queue.

    up: file descriptor of a pipe, written to once the locks are held. Returns queue.UP, or queue.BUSY if no
    device is free or another process supervises the run.
    """
    crash.point("supervise.begin")
    claimed = claim.take_devices(launch.device_count(run))
    lock = Lock(run.lock)
    if claimed is None or not lock.acquire(wait=2):
        return queue.BUSY
    try:
        crash.point("supervise.locked")
        state_event = run.state_event()
        if state_event is None or state_event["kind"] == "end" or state_event["name"] != "queued":
            return queue.BUSY  # stopped, or another attempt was first
        if up is not None:
            os.write(up, b"up")
            os.close(up)
            _redirect_to_devnull(2)  # errors up to here were for the starter
        end_hooks.begin(run)
        if not launch.is_remote(run):
            chat.end_if_idle([device for device, _ in claimed])
        Attempt(run, claimed).execute()
        _evaluate(run)
    except OSError as error:  # not even the end event could be written; the queue is advanced all the same
        print(f"supervisor of {run.id}: {reason_of(error)}", file=sys.stderr)
    finally:
        for _, device_lock in claimed:
            device_lock.release()
        lock.release()
    crash.point("supervise.over")
    if launch.HOSTS not in os.environ:  # several hosts serve this run only
        queue.advance()
    end_hooks.catch_up()
    return queue.UP


def _evaluate(run: Run) -> None:
    """What the order asks for after a finished training, with the device still held."""
    try:
        is_ordered = run.config.evaluation is not None
    except StudioError:
        return
    if is_ordered:
        from studio import evaluating  # late: data and numpy, for the runs that ask for it

        evaluating.after_training(run)


def detach(run: Run) -> int:
    """Supervise in a forked process with its own session; the parent returns once the child holds its locks."""
    read_end, write_end = os.pipe()
    if os.fork():
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            answer = pipe.read()
        return {b"up": queue.UP, b"busy": queue.BUSY}.get(answer, 1)
    os.close(read_end)
    os.setsid()
    process.adopt_orphans()  # not inherited by a fork
    _redirect_to_devnull(0, 1)
    code = supervise(run, write_end)
    if code == queue.BUSY:
        os.write(write_end, b"busy")
    return code


def _redirect_to_devnull(*streams: int) -> None:
    devnull = os.open(os.devnull, os.O_RDWR)
    for stream in streams:
        os.dup2(devnull, stream)


def main(arguments: list[str]) -> int:
    """--detach: return queue.UP or queue.BUSY at once and go on in the background. SIGTERM stops and saves."""
    credentials.receive()
    run = Run(Path(next(word for word in arguments if word != "--detach")).resolve())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: run.request_stop())
    if "--detach" in arguments:
        return detach(run)
    process.adopt_orphans()
    return supervise(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
