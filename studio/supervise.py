"""python -m studio.supervise RUN-FOLDER: the small parent of one run's trainer. No torch, no gradio.

It takes a device and holds the run's lock, carries one attempt out (attempt.py), and then starts the next queued run.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from studio import crash, process, queue
from studio.events import Lock
from studio.run import Run
from studio.runs import claim, end_hooks, launch
from studio.runs.attempt import Attempt
from studio.talk import chat


def supervise(run: Run, up: int | None = None) -> int:
    """Carry out one attempt of a run, from lock to end line, and move the queue on. up: a pipe that hears when the locks are held.

    Returns queue.UP, or queue.BUSY when no device is free or somebody else supervises the run.
    """
    crash.point("supervise.begin")
    taken = claim.take_devices(launch.device_count(run))
    lock = Lock(run.lock)
    if taken is None or not lock.acquire(wait=2):
        return queue.BUSY
    try:
        crash.point("supervise.locked")
        state_event = run.state_event()
        if state_event is None or state_event["kind"] == "end" or state_event["name"] != "queued":
            return queue.BUSY  # it was stopped, or another attempt came first
        if up is not None:
            os.write(up, b"up")
            os.close(up)
            _quiet(2)  # until here an error was for whoever starts us
        end_hooks.begin(run)
        if not launch.is_remote(run):
            chat.end_if_idle([device for device, _ in taken])
        Attempt(run, taken).carry_out()
    except OSError as error:  # not even its end could be written; the queue goes on all the same
        print(f"supervisor of {run.id}: {error}", file=sys.stderr)
    finally:
        for _, device in taken:
            device.release()
        lock.release()
    crash.point("supervise.over")
    if launch.HOSTS not in os.environ:  # several hosts were lent for this run alone
        queue.advance()
    end_hooks.catch_up()
    return queue.UP


def detach(run: Run) -> int:
    """Fork into a session of its own and return once the child holds its locks, so that nobody has to reap it."""
    listen, tell = os.pipe()
    if os.fork():
        os.close(tell)
        with os.fdopen(listen, "rb") as heard:
            word = heard.read()
        return queue.UP if word == b"up" else queue.BUSY if word == b"busy" else 1
    os.close(listen)
    os.setsid()
    process.adopt_orphans()  # a fork does not inherit it
    _quiet(0, 1)
    code = supervise(run, tell)
    if code == queue.BUSY:
        os.write(tell, b"busy")
    return code


def _quiet(*streams: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in streams:
        os.dup2(nothing, stream)


def main(arguments: list[str]) -> int:
    """--detach: answer queue.UP or queue.BUSY at once and go on in the background. SIGTERM: stop the run and keep what it learnt."""
    run = Run(Path([word for word in arguments if word != "--detach"][0]).resolve())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: run.request_stop())
    if "--detach" in arguments:
        return detach(run)
    process.adopt_orphans()
    return supervise(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
