"""One attempt of a run: starts the trainer, logs its output, handles stop requests and a full disk, writes the end."""

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

from studio import crash, credentials, process, queue
from studio.device import Device, environment
from studio.errors import DeviceError, StudioError
from studio.events import FULL, Lock, read
from studio.home import PROJECT
from studio.run import Run
from studio.runs import checkpoints, launch, recovery, results, sequence, stopping
from studio.runs.diagnosis import DISK, DISK_LOW, diagnose
from studio.runs.log import ATTEMPT, Log
from studio.runs.state import STATE_EVENTS

EXIT_GRACE = 10.0  # seconds from the trainer's end event to its exit; libraries may hang in their exit handlers
DISK_VERY_LOW = int(os.environ.get("STUDIO_DISK_VERY_LOW", 100_000_000))  # bytes free below which a run is stopped
POLL = 0.2  # seconds between two checks of trainer and stop file
DISK_POLL = 5.0
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class Attempt:
    """One attempt of a run, from acquired locks to the end event."""

    def __init__(self, run: Run, devices: list[tuple[Device, Lock]]):
        self.run, self.devices = run, devices
        self.number = run.attempt() + 1
        self.trainer_lock = Lock(run.trainer_lock)
        self.memory_kills = process.memory_kills()
        self.cursor = run.events_file.stat().st_size
        self.state_event: dict[str, Any] = {"kind": "phase", "name": "starting"}  # of this attempt
        self.seconds_per_step = 0.0  # between the last two step events
        self.last_step_at = 0.0  # when the last one was read, monotonic
        self.output_lost = False  # because the disk was full

    def execute(self) -> None:
        """Start the trainer, watch it, write the end event; an exception becomes the end event too."""
        run = self.run
        names = [run.config.place.address] if launch.is_remote(run) else [device.id for device, _ in self.devices]
        run.append("phase", name="starting", attempt=self.number, devices=names, changes=len(run.changes()))
        crash.point("supervise.starting")
        run.allocate_reserve()
        try:
            self._refuse_too_few()
            if not recovery.end_orphans(run) or not self.trainer_lock.acquire(wait=5):
                hint = "End it by hand, or restart the computer."
                raise StudioError("A trainer of an earlier attempt is still alive and cannot be ended.", hint)
            self._recover()
            self._write_end(self._train())
        except StudioError as error:
            self._end("failed", cause=error.message, action=error.hint, reason=error.reason)
        except Exception as error:  # noqa: BLE001 - the end event must be written, the queue advanced
            self._end_with_internal_error(error)
        finally:
            process.kill_all(process.descendants)
            self.trainer_lock.release()
            if run.folder.is_dir():
                queue.finalize(run)

    def _end_with_internal_error(self, error: Exception) -> None:
        if not self.run.folder.is_dir():
            return  # the run was moved or deleted
        self._read_new_events()
        if self._has_end():  # the trainer was through: what it wrote holds
            traceback.print_exception(error)
            return
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
        if count > len(self.devices) > 0 and self.devices[0][0].traits.cards:  # a CPU serves any number of processes
            raise DeviceError(
                f"The order wants {count} devices; here {'is' if len(self.devices) == 1 else 'are'} "
                f"{len(self.devices)}.",
                "Set training.devices to what is here, or leave it out.",
                "training.devices",
            )

    def _recover(self) -> None:
        """Clean up what an earlier attempt left in the folder."""
        recovery.tidy(self.run)
        for message in checkpoints.tidy(self.run.checkpoints):
            self.run.note(message, attempt=self.number)
        results.tidy_result(self.run.result)
        sequence.begin(self.run.checkpoints, self.run.config)
        self.run.take_requests()  # meant for an earlier attempt

    # -- the trainer

    def _train(self) -> int:
        """Start the trainer and copy its output until it ends. Returns its exit code (negative: signal)."""
        with Log(self.run.log) as log:
            log.write(f"{ATTEMPT}{self.number}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            crash.point("supervise.launch")
            trainer = self._launch()
            crash.point("supervise.launched")
            try:
                self._watch(trainer, log)
            finally:
                stopping.signal_group(trainer, signal.SIGKILL)
                trainer.wait()
                self.output_lost = log.lost > 0
        crash.point("supervise.gone")
        return trainer.returncode

    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the trainer in its own process group; it dies with this process and inherits the device locks."""
        parent, locks = os.getpid(), [self.trainer_lock, *(lock for _, lock in self.devices)]

        def prepare() -> None:
            for number in IGNORED_SIGNALS:
                signal.signal(number, signal.SIG_DFL)  # the trainer would inherit SIG_IGN
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
        variables = {"PYTHONUNBUFFERED": "1", "STUDIO_ATTEMPT": str(self.number), "TOKENIZERS_PARALLELISM": "false"}
        variables |= environment([device for device, _ in self.devices])
        return {
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            **launch.environment(self.run.config),
            **credentials.child_environment(*launch.secrets(self.run.config)),
            **variables,
        }

    def _watch(self, trainer: subprocess.Popen[bytes], log: Log) -> None:
        """Copy output, handle stop requests and watch the disk until the trainer has ended and its pipe is empty."""
        stop, ended = stopping.Stopping(self.run, trainer), None
        disk_at = -DISK_POLL
        with selectors.DefaultSelector() as selector:
            selector.register(trainer.stdout, selectors.EVENT_READ)
            while trainer.poll() is None:
                self._copy(selector, log, POLL)
                now = time.monotonic()
                self._read_new_events()
                stop.check(now, self.state_event, self.seconds_per_step)
                if now - disk_at > DISK_POLL:
                    disk_at = now
                    self._watch_disk()
                ended = ended or (now if self._has_end() else None)
                if ended and now - ended > EXIT_GRACE:
                    stopping.signal_group(trainer, signal.SIGKILL)
            stopping.signal_group(trainer, signal.SIGKILL)  # what is left of its group, so that the pipe closes
            until = time.monotonic() + 2
            while self._copy(selector, log, 0) and time.monotonic() < until:
                pass

    def _copy(self, selector: selectors.BaseSelector, log: Log, wait: float) -> bool:
        """Copy available output to the log; False if there was none. With a closed pipe it sleeps `wait` seconds."""
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
            text = f"Only {free >> 20} MiB of disk are free: the run is stopped."
            self.run.note(text, DISK_LOW.action, "error", attempt=self.number)
            try:
                self.run.request_stop("disk")
            except OSError:
                pass  # no room for the stop file: retried at the next check

    # -- the end

    def _read_new_events(self) -> None:
        """Read the events that the trainer has appended since the last call."""
        new_events, self.cursor = read(self.run.events_file, self.cursor)
        for event in new_events:
            if event["kind"] in STATE_EVENTS:
                self.state_event = event
            elif event["kind"] == "step":
                now = time.monotonic()
                self.seconds_per_step, self.last_step_at = now - (self.last_step_at or now), now

    def _has_end(self) -> bool:
        return self.state_event["kind"] == "end"

    def _end(self, state: str, **fields: object) -> None:
        self.run.append("end", state=state, attempt=self.number, **fields)
        self.state_event = {"kind": "end", "state": state}
        crash.point("supervise.ended")

    def _write_end(self, code: int) -> None:
        """Write the end event if the trainer wrote none or could not know the cause."""
        self._read_new_events()
        run, stop_mode = self.run, self.run.stop_request()
        ended = self._has_end()
        if not ended and stop_mode is None:
            cause = diagnose(code, run.log, process.memory_kills() - self.memory_kills, self.output_lost)
            self._end("failed", code=code, cause=cause.message, action=cause.action, reason=cause.kind)
        elif not ended:
            kept = checkpoints.newest(run.checkpoints) and stop_mode != "discard"
            self._end(
                "stopped",
                code=code,
                cause="Stopped as asked; the last checkpoint is kept."
                if kept
                else "Stopped as asked before anything was kept.",
                action="Resume it to go on from its last checkpoint." if kept else "Resume it to start again.",
            )
        if stop_mode == "disk" and self.state_event["state"] == "stopped":
            self._end("stopped", code=code, cause=DISK_LOW.message, action=DISK_LOW.action, reason=DISK_LOW.kind)


def command(run: Run) -> list[str]:
    """The trainer's command line. STUDIO_TRAINER names another module, for tests."""
    module = os.environ.get("STUDIO_TRAINER")
    if module:
        return [sys.executable, "-m", module, str(run.folder)]
    return launch.command(run)
