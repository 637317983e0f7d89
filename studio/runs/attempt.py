"""One attempt of a run: the trainer started, its output kept, stop requests and the disk seen to, its end written down."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
import traceback
from typing import Any

from studio import crash, process, queue
from studio.device import Device, environment
from studio.errors import DeviceError, StudioError
from studio.events import FULL, Lock, read
from studio.home import PROJECT
from studio.run import Run
from studio.runs import checkpoints, launch, recovery, sequence, stopping
from studio.runs.diagnosis import DISK, DISK_LOW, diagnose
from studio.runs.log import ATTEMPT, Log
from studio.runs.summary import STATE_EVENTS

EXIT_GRACE = 10.0  # seconds from the trainer's end line to its exit; libraries may hang in their exit handlers
DISK_VERY_LOW = int(os.environ.get("STUDIO_DISK_VERY_LOW", 100_000_000))  # bytes free below which a run is stopped
LOOK = 0.2  # seconds between two looks at trainer and stop file
DISK_LOOK = 5.0
DEAF = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class Attempt:
    """One attempt of a run, from held locks to the end line."""

    def __init__(self, run: Run, taken: list[tuple[Device, Lock]]):
        self.run, self.taken = run, taken
        self.number = run.attempt() + 1
        self.trainer_lock = Lock(run.trainer_lock)
        self.memory_kills = process.memory_kills()
        self.cursor = run.events_file.stat().st_size
        self.state_event: dict[str, Any] = {
            "kind": "phase",
            "name": "starting",
        }  # the last phase or end of this attempt
        self.pace, self.pointed = (
            0.0,
            0.0,
        )  # seconds between its last two points of the curve, and when the last one was seen
        self.muted = False  # whether output was lost because the disk was full

    def carry_out(self) -> None:
        """Start the trainer, stand by it, write the end. An error of our own is written as the run's end too."""
        run = self.run
        where = [run.config.place.address] if launch.is_remote(run) else [device.id for device, _ in self.taken]
        run.append("phase", name="starting", attempt=self.number, devices=where, changes=len(run.changes()))
        crash.point("supervise.starting")
        run.take_reserve()
        try:
            self._refuse_too_few()
            if not recovery.end_orphans(run) or not self.trainer_lock.acquire(wait=5):
                raise StudioError(
                    "A trainer of an earlier attempt is still alive and cannot be ended.",
                    "End it by hand, or restart the computer.",
                )
            self._recover()
            self._conclude(self._train())
        except StudioError as error:
            self._end("failed", cause=error.message, action=error.hint, reason=error.reason)
        except Exception as error:  # noqa: BLE001 - the top of a process: it must leave an end line, and the queue must go on
            self._end_of_own(error)
        finally:
            process.kill_all(process.descendants)
            self.trainer_lock.release()
            if run.folder.is_dir():
                queue.finalize(run)

    def _end_of_own(self, error: Exception) -> None:
        if not self.run.folder.is_dir():
            return  # it was moved or deleted: there is nothing left to write on
        if isinstance(error, OSError) and error.errno in FULL:
            self._end("failed", cause=DISK.message, action=DISK.action, reason=DISK.kind)
            return
        with Log(self.run.log) as log:
            log.write(traceback.format_exc().encode())
        self._end(
            "failed",
            cause=f"The supervisor met an error of its own: {error!r}",
            action="Report it as a bug, with the end of the log.",
            reason="bug",
        )

    def _refuse_too_few(self) -> None:
        count = launch.device_count(self.run)
        if (
            count > len(self.taken) > 0 and self.taken[0][0].traits.cards
        ):  # a CPU is one device for as many processes as one likes
            raise DeviceError(
                f"The order wants {count} devices; here {'is' if len(self.taken) == 1 else 'are'} {len(self.taken)}.",
                "Set training.devices to what is here, or leave it out.",
                "training.devices",
            )

    def _recover(self) -> None:
        """Put the folder in order after whatever ended the attempt before."""
        recovery.tidy(self.run)
        for what in checkpoints.tidy(self.run.checkpoints):
            self.run.append("note", level="warning", text=what, attempt=self.number)
        checkpoints.tidy_result(self.run.result)
        sequence.begin(self.run.checkpoints, self.run.config)
        self.run.take_requests()  # what the attempt before did not come to

    # -- the trainer

    def _train(self) -> int:
        """Start the trainer and copy its output until it is gone. Returns its exit code (negative: signal)."""
        with Log(self.run.log) as log:
            log.write(f"{ATTEMPT}{self.number}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            crash.point("supervise.launch")
            trainer = self._launch()
            crash.point("supervise.launched")
            try:
                self._watch(trainer, log)
            finally:
                stopping.group(trainer, signal.SIGKILL)
                trainer.wait()
                self.muted = log.lost > 0
        crash.point("supervise.gone")
        return trainer.returncode

    def _launch(self) -> subprocess.Popen[bytes]:
        """The trainer in a process group of its own; it dies with this process and holds the device's locks as long as it lives."""
        parent, locks = os.getpid(), [self.trainer_lock, *(lock for _, lock in self.taken)]

        def prepare() -> None:
            for number in DEAF:
                signal.signal(number, signal.SIG_DFL)  # what we ignore would be ignored by the trainer too
            process.die_with_parent(parent)
            process.prefer_oom_kill()

        return subprocess.Popen(
            command(self.run),
            cwd=PROJECT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=prepare,
            pass_fds=[lock.descriptor for lock in locks],
        )

    def _environment(self) -> dict[str, str]:
        settled = {"PYTHONUNBUFFERED": "1", "STUDIO_ATTEMPT": str(self.number), "TOKENIZERS_PARALLELISM": "false"}
        settled |= environment([device for device, _ in self.taken])
        return {
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            **launch.environment(self.run.config),
            **os.environ,
            **settled,
        }

    def _watch(self, trainer: subprocess.Popen[bytes], log: Log) -> None:
        """Copy output, see to stop requests, watch the disk, until the trainer is gone and its pipe is empty."""
        stop, ended, disk_at = stopping.Stopping(self.run, trainer), None, -DISK_LOOK
        with selectors.DefaultSelector() as selector:
            selector.register(trainer.stdout, selectors.EVENT_READ)
            while trainer.poll() is None:
                self._copy(selector, log, LOOK)
                now = time.monotonic()
                self._read_on()
                stop.look(now, self.state_event, self.pace)
                if now - disk_at > DISK_LOOK:
                    disk_at = now
                    self._watch_disk()
                ended = ended or (now if self._has_end() else None)
                if ended and now - ended > EXIT_GRACE:
                    stopping.group(trainer, signal.SIGKILL)
            stopping.group(trainer, signal.SIGKILL)  # whatever it left behind in its group; then nobody writes any more
            until = time.monotonic() + 2
            while self._copy(selector, log, 0) and time.monotonic() < until:
                pass

    def _copy(self, selector: selectors.BaseSelector, log: Log, wait: float) -> bool:
        """Some output to the log; False when there was none. A closed pipe is only waited on, so that the loop does not spin."""
        if not selector.get_map():
            time.sleep(wait)
            return False
        ready = selector.select(timeout=wait)
        for key, _ in ready:
            data = os.read(key.fd, 1 << 20)
            if data:
                log.write(data)
            else:
                selector.unregister(key.fileobj)
        return bool(ready)

    def _watch_disk(self) -> None:
        free = shutil.disk_usage(self.run.folder).free
        if free < DISK_VERY_LOW and self.run.stop_request() is None:
            self.run.append(
                "note",
                level="error",
                attempt=self.number,
                text=f"Only {free // 10**6} MB of disk are free: the run is stopped.",
                hint=DISK_LOW.action,
            )
            try:
                self.run.request_stop("disk")
            except OSError:
                pass  # not even that fits: the trainer's own writes fail soon, and the next look tries again

    # -- the end

    def _read_on(self) -> None:
        """Take what the trainer has written since the last look."""
        new, self.cursor = read(self.run.events_file, self.cursor)
        for event in new:
            if event["kind"] in STATE_EVENTS:
                self.state_event = event
            elif event["kind"] == "step":
                now = time.monotonic()
                self.pace, self.pointed = now - (self.pointed or now), now

    def _has_end(self) -> bool:
        return self.state_event["kind"] == "end"

    def _end(self, state: str, **fields: object) -> None:
        self.run.append("end", state=state, attempt=self.number, **fields)
        self.state_event = {"kind": "end", "state": state}
        crash.point("supervise.ended")

    def _conclude(self, code: int) -> None:
        """The end line, where the trainer wrote none or could not know why."""
        self._read_on()
        run, how, told = self.run, self.run.stop_request(), self._has_end()
        if not told and how is None:
            cause = diagnose(code, run.log, process.memory_kills() - self.memory_kills, self.muted)
            self._end("failed", code=code, cause=cause.message, action=cause.action, reason=cause.kind)
        elif not told:
            kept = checkpoints.newest(run.checkpoints) and how != "discard"
            self._end(
                "stopped",
                code=code,
                cause="Stopped as asked" + ("; the last checkpoint is kept." if kept else " before anything was kept."),
                action="Resume it to go on from its last checkpoint." if kept else "Resume it to start again.",
            )
        if how == "disk" and self.state_event["state"] == "stopped":
            self._end("stopped", code=code, cause=DISK_LOW.message, action=DISK_LOW.action, reason=DISK_LOW.kind)


def command(run: Run) -> list[str]:
    """The trainer's command line. STUDIO_TRAINER names another module, for tests."""
    stand_in = os.environ.get("STUDIO_TRAINER")
    if stand_in:
        return [sys.executable, "-m", stand_in, str(run.folder)]
    return launch.command(run)
