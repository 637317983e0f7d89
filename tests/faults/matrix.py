"""Faults other than kills: each cell breaks one thing and checks state, cause and action."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio import checkpoints, claim, process, queue
from studio.home import home
from studio.run import Run, runs, summary
from tests.faults import stage

HOLDER = "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"


def finished_run(**ordered: object) -> Run:
    with stage.surroundings(**stage.fake(**ordered)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.ended(run), "the run's end")
    assert run.state() == "finished", run.turn()
    return run


# -- disk


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """STUDIO_HOME on a tmpfs of that size. Raises PermissionError where this process may not mount."""
    place = home() / "disk"
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True).returncode:
        raise PermissionError("mount")
    try:
        with stage.surroundings(STUDIO_HOME=str(place)):
            yield place
            stage.clear()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def full_disk() -> None:
    """The disk fills in the middle of a run: no checkpoint is lost, the end line gets in, freed and resumed it finishes."""
    with small_disk("4m") as place, stage.surroundings(**stage.fake(pause=0.15, weight=500_000), STUDIO_DISK_LOW="0", STUDIO_DISK_VERY_LOW="0"):
        run = queue.submit(stage.order())
        stage.until(lambda: checkpoints.newest(run.checkpoints), "the first checkpoint")
        filler = place / "filler"
        fill(filler)
        stage.until(lambda: stage.ended(run), "the run's end")
        told = summary(run)
        assert told["state"] in ("finished", "failed", "stopped"), told
        assert told["state"] == "finished" or "disk" in told["cause"], told
        assert told["state"] == "finished" or told["action"], told
        assert checkpoints.newest(run.checkpoints), "the checkpoint before is still there"
        filler.unlink()
        stage.bring_home(run)
        assert summary(run)["saved"]
        assert checkpoints.steps(run.checkpoints)[-1] == 12


def fill(file: Path) -> None:
    """Take every free byte."""
    with open(file, "wb", buffering=0) as filled:
        for size in (65536, 4096, 1):
            try:
                while filled.write(b"x" * size):
                    pass
            except OSError:
                continue


def low_disk() -> None:
    """Below the low mark no checkpoint is made, and that is said; the run goes on."""
    with stage.surroundings(STUDIO_DISK_LOW=str(10**18)):
        run = finished_run()
    assert not checkpoints.steps(run.checkpoints)
    assert any(event["kind"] == "note" and "free" in event["text"] for event in run.events())
    stage.check_fake(run)


def very_low_disk() -> None:
    """Below the very low mark the run is stopped cleanly, with the cause; freed and resumed it finishes."""
    with stage.surroundings(**stage.fake(pause=0.3), STUDIO_DISK_VERY_LOW=str(10**18)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.ended(run), "the run's end")
    told = summary(run)
    assert told["state"] == "stopped", told
    assert "disk" in told["cause"], told
    assert "Free some space" in told["action"], told
    with stage.surroundings(**stage.fake()):
        stage.bring_home(run)
    stage.check_fake(run)


# -- files


def damaged_checkpoint(name: str, how: str) -> None:
    """The newest checkpoint lacks a file, or one is cut: it is moved aside and said so; the run goes on from the one before, exactly."""
    with stage.surroundings(**stage.fake()):
        run = crashed_at_step_10()
        damage(run.checkpoints / "checkpoint-8" / name, how)
        queue.resume(run)
        stage.until(lambda: stage.ended(run), "the run's end")
    if name != "manifest.json" or how == "missing":
        assert any("damaged" in event.get("text", "") for event in run.events()), how
    assert [event["from_step"] for event in run.events() if event.get("from_step")] == [4]
    stage.check_fake(run)


def crashed_at_step_10() -> Run:
    """A run that failed with checkpoints at steps 4 and 8."""
    with stage.surroundings(**stage.fake(), STUDIO_CRASH_AT="events.step#10"):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.ended(run), "the crash")
    assert run.state() == "failed", run.turn()
    assert summary(run)["action"].startswith("Resume")
    return run


def damage(file: Path, how: str) -> None:
    if how == "missing":
        file.unlink()
    elif how == "changed":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
    else:
        os.truncate(file, file.stat().st_size // 2)


def cut_diary(cut: int, run: Run, copy: Path) -> None:
    """The diary of a finished run loses its last `cut` bytes: the state is right, no step counts twice, and it can be written on."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run.folder, copy)
    one = Run(copy)
    os.truncate(one.diary, one.diary.stat().st_size - cut)
    assert one.state() in ("finished", "lost"), one.state()
    state = queue.settle(one)
    assert state == ("finished" if cut <= 1 else "lost"), (cut, state)
    told = summary(one)
    assert state == "finished" or (told["cause"] and told["action"]), told
    steps = stage.steps_told(one)
    assert steps == list(range(1, len(steps) + 1))
    one.append("note", level="info", text="on")
    assert one.events()[-1]["text"] == "on"
    assert not list(copy.glob(".*"))


# -- processes


def standing_still(who: str, seconds: float) -> None:
    """SIGSTOP for a while: the run is not lost, and goes on afterwards."""
    with stage.surroundings(**stage.fake(pause=0.1)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        one = stage.supervisor(run) if who == "supervisor" else stage.trainers(run)[0]
        assert one is not None
        one.send_signal(signal.SIGSTOP)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            queue.advance()
            assert run.state() == "running", run.state()
            time.sleep(0.2)
        one.send_signal(signal.SIGCONT)
        stage.until(lambda: stage.ended(run), "the run's end")
    stage.check_fake(run)


def stopped_while_standing_still() -> None:
    """A trainer under SIGSTOP does not hear a stop: SIGKILL ends it."""
    with stage.surroundings(**stage.fake(pause=0.1), STUDIO_STOP_TERM="1"):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        stage.trainers(run)[0].send_signal(signal.SIGSTOP)
        queue.stop(run)
        stage.until(lambda: stage.ended(run), "the run's end", 15)
    assert run.state() == "stopped"


def foreign_process() -> None:
    """A process that has nothing to do with us, on an id that our files name, is never signalled; an orphan that holds the lock is ended."""
    run = finished_run()
    foreign = subprocess.Popen(["sleep", "600"])
    orphan = subprocess.Popen([sys.executable, "-c", HOLDER, str(run.trainer_lock)], stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    orphan.stdout.readline()
    try:
        run.append("phase", name="training", attempt=2, pid=foreign.pid)
        for file in (run.lock, run.trainer_lock, run.folder / "pid"):
            file.write_text(str(foreign.pid))
        assert run.state() == "lost"
        queue.advance()
        assert (run.state(), run.turn()["kind"]) == ("lost", "end")
        stage.until(lambda: not _alive(orphan.pid), "the orphan's end", 10)
        assert foreign.poll() is None
    finally:
        for one in (foreign, orphan):
            one.kill()
            one.wait()


def device_stays_taken() -> None:
    """The supervisor dies, the trainer cannot follow: the device is not free while the trainer lives."""
    with stage.surroundings(**stage.fake(pause=0.2)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        trainer = stage.trainers(run)[0]
        trainer.send_signal(signal.SIGSTOP)  # a stopped process dies by SIGKILL all the same; what is checked is the order of things
        stage.kill(stage.supervisor(run))
        while trainer.is_running() and trainer.status() != "zombie":
            assert process.holders(run.trainer_lock) or not trainer.is_running() or trainer.status() == "zombie"
            time.sleep(0.01)
        stage.bring_home(run)
    stage.check_fake(run)


def supervisor_without_death_signal() -> None:
    """Where the system knows no parent-death signal the trainer outlives its supervisor: it is found by its lock and ended before a resume."""
    with stage.surroundings(**stage.fake(pause=0.2, orphan=True)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        trainer = stage.trainers(run)[0]
        stage.kill(stage.supervisor(run))
        stage.until(lambda: not run.alive(), "the supervisor's end")
        assert trainer.is_running()
        with open(claim.device_locks()[0].path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                raise AssertionError("the device is free while a trainer uses it")
        queue.advance()
        assert run.state() == "lost", run.turn()
        stage.until(lambda: not trainer.is_running() or trainer.status() == "zombie", "the orphan's end", 10)
        stage.bring_home(run)
    stage.check_fake(run)


def stray_child() -> None:
    """A grandchild in a session of its own, as torchrun makes them, does not outlive the run."""
    with stage.surroundings(**stage.fake(child=True)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.ended(run), "the run's end")
    child = next(event["pid"] for event in run.events() if event.get("pid"))
    stage.until(lambda: not _alive(child), "the child's end", 5)


def _alive(pid: int) -> bool:
    import psutil
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def two_pages() -> None:
    """Two pages move one queue: each run is started once, and never two at a time."""
    loop = "end = time.monotonic() + 60\nwhile time.monotonic() < end:\n    queue.advance()\n    time.sleep(0.05)\n"
    with stage.surroundings(**stage.fake(pause=0.03)):
        pages = [stage.page(loop) for _ in range(2)]
        try:
            three = [queue.submit(stage.order(name)) for name in ("a", "b", "c")]
            while not all(stage.ended(run) for run in three):
                assert sum(run.alive() for run in three) <= 1
                time.sleep(0.02)
        finally:
            for one in pages:
                one.kill()
                one.wait()
    for run in three:
        stage.check_fake(run)
        assert sum(event.get("name") == "starting" for event in run.events()) == 1


def clock_step(seconds: int) -> None:
    """The time of day steps in the middle of a run."""
    run = finished_run(clock=seconds)
    stage.check_fake(run)
    told = summary(run)
    assert told["seconds"] >= 0
    with stage.surroundings(**stage.fake(pause=0.05)):
        first, second = queue.submit(stage.order("first")), queue.submit(stage.order("second"))
        stage.until(lambda: stage.ended(first) and stage.ended(second), "both ends")
    starts = [next(event["at"] for event in run.events() if event.get("name") == "starting") for run in (first, second)]
    assert starts[0] <= starts[1]


def middle_ones_bad() -> None:
    """Four queued, one that fails, one whose order was spoilt, the page killed in between: each ends as it should."""
    with stage.surroundings(**stage.fake(pause=0.1)):
        page = stage.page("for name in ('first', 'bad', 'spoilt', 'last'): queue.submit(order(name))\ntime.sleep(60)\n")
        stage.until(lambda: len(runs()) == 4, "four runs")
        named = {run.config.name: run for run in runs()}
        page.kill()
        page.wait()
        (named["spoilt"].folder / "config.yaml").write_bytes(b"\xff\x00: [")
        stage.until(lambda: all(stage.ended(run) for run in runs()), "all ends")
    stage.check_fake(named["first"])
    stage.check_fake(named["last"])
    told = {name: summary(run) for name, run in named.items()}
    assert told["bad"]["state"] == told["spoilt"]["state"] == "failed"
    assert "this run is bad" in told["bad"]["cause"]
    assert "config.yaml" in told["spoilt"]["cause"]
    assert all(told[name]["action"] for name in ("bad", "spoilt"))


# -- stop


PHASES = {"import": {"phases": {"import": 30}}, "fetching model": {"phases": {"fetching model": 30}}, "reading data": {"phases": {"reading data": 30}},
          "training": {"pause": 0.2}, "saving": {"pause": 0.01, "phases": {"saving": 0.7}}}


def stop_in(phase: str, how: bool = False, **ordered: object) -> None:
    """Stop in a phase: the process tree is gone within 15 s, the state is right, and the next run starts at once."""
    with stage.surroundings(**stage.fake(**{"child": True, **PHASES[phase], **ordered})):
        run = queue.submit(stage.order())
        seen = "starting" if phase == "import" else phase
        stage.until(lambda: (run.turn() or {}).get("name") == seen, f"the phase {phase}")
        queue.stop(run, how)
        assert run.state() in ("stopping", "stopped")
        stage.until(lambda: stage.ended(run) and not process.holders(run.trainer_lock), "the process tree's end", 15)
    told = summary(run)
    assert told["state"] == "stopped", told
    assert told["cause"]
    assert told["saved"] == (phase in ("training", "saving") and not how), told
    if how:
        assert not [path for path in (run.checkpoints, run.result) if path.exists()]
    with stage.surroundings(**stage.fake(steps=2)):
        after = queue.submit(stage.order("after"))
        assert after.state() in ("starting", "running", "finished")
        stage.until(lambda: stage.ended(after), "the next run's end")
    assert after.state() == "finished"


def seconds_with_output(size: int) -> float:
    """Seconds a run takes whose trainer writes `size` bytes while no page is open, by the trainer's own clock."""
    steps = 100
    run = finished_run(steps=steps, pause=0.05, save_every=1000, output=max(1, size // steps))
    at = [event["at"] for event in run.events() if event["kind"] == "step"]
    return at[-1] - at[0]


