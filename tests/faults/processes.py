"""Processes that stand still, outlive others, meet, or are mistaken for one another."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import psutil

from studio import process, queue
from studio.home import PROJECT, home, subfolder
from studio.run import create, runs, summary
from studio.runs import claim, goal
from tests.faults import stage
from tests.faults.listener import listening

HOLDER = (
    "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); "
    "print('held', flush=True); time.sleep(600)"
)


def standing_still(who: str, seconds: float) -> None:
    """SIGSTOP for a while: the run is not lost, and goes on afterwards."""
    with stage.surroundings(**stage.fake(pause=0.1)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        one = stage.supervisor(run) if who == "supervisor" else stage.trainers(run)[0]
        assert one is not None
        one.send_signal(signal.SIGSTOP)
        stage.noticed(run, "running")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            queue.advance()
            assert run.state() == "running", run.state()
            time.sleep(0.2)
        one.send_signal(signal.SIGCONT)
        stage.until(lambda: stage.ended(run), "the run's end")
    stage.check_fake(run)


def foreign_process() -> None:
    """A process that has nothing to do with us, on an id that our files name, is never signalled; an orphan that
    holds the lock is ended.
    """
    run = stage.finished_run()
    foreign = subprocess.Popen(["sleep", "600"])
    orphan = subprocess.Popen([sys.executable, "-c", HOLDER, str(run.trainer_lock)], stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    orphan.stdout.readline()
    try:
        run.append("phase", name="training", attempt=2, pid=foreign.pid)
        for file in (run.lock, run.trainer_lock, run.folder / "pid"):
            file.write_text(str(foreign.pid))
        assert run.state() == "lost"
        stage.noticed(run, "lost", "ended without a word", "Resume", "lost")
        queue.advance()
        stage.until(lambda: run.state_event()["kind"] == "end" and not _alive(orphan.pid), "the orphan's end", 40)
        assert foreign.poll() is None
    finally:
        for one in (foreign, orphan):
            one.kill()
            one.wait()


def reboot() -> None:
    """All is killed at once as by a reboot; lock files stay, temporary files name ids that others have now: lost,
    then resumed to the end.
    """
    with stage.surroundings(**stage.fake(pause=0.2)):
        run, waits = queue.submit(stage.order()), queue.submit(stage.order("waits"))
        stage.until(lambda: len(stage.steps_told(run)) > 4, "some steps")
        for one in (stage.supervisor(run), *stage.trainers(run)):
            stage.kill(one)
        stage.until(lambda: not run.alive() and not stage.trainers(run), "the processes die")
        for file in (run.lock, run.trainer_lock):
            file.write_text(str(os.getpid()))
        half = run.folder / f".changes.json.{os.getpid()}.tmp"  # the id is another's since the reboot
        half.write_text("{")
        os.utime(half, (1, 1))
        assert waits.state() == "queued"
        stage.noticed(run, "lost", "ended without a word", "Resume", "lost")
        stage.noticed(waits, "finished")
        stage.bring_home(run)
        stage.until(lambda: not waits.alive(), "the other's end")
    for one in (run, waits):
        stage.check_fake(one)


def device_stays_taken() -> None:
    """The supervisor dies, the trainer cannot follow at once: the device is not free while the trainer lives."""
    with stage.surroundings(**stage.fake(pause=0.2)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        trainer = stage.trainers(run)[0]
        trainer.send_signal(
            signal.SIGSTOP
        )  # a stopped process dies by SIGKILL all the same; what is checked is the order of things
        stage.kill(stage.supervisor(run))
        while trainer.is_running() and trainer.status() != "zombie":
            assert process.holders(run.trainer_lock) or not trainer.is_running() or trainer.status() == "zombie"
            time.sleep(0.01)
        stage.noticed(run, "lost", "ended without a word", "Resume", "lost")
        stage.bring_home(run)
    stage.check_fake(run)


def supervisor_without_death_signal() -> None:
    """Where the system knows no parent-death signal the trainer outlives its supervisor: it is found by its lock and
    ended before a resume.
    """
    with stage.surroundings(**stage.fake(pause=0.1, orphan=True)):
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
        stage.noticed(run, "lost", "ended without a word", "Resume", "lost")
        queue.advance()
        stage.until(lambda: not trainer.is_running() or trainer.status() == "zombie", "the orphan's end", 40)
        stage.bring_home(run)
    stage.check_fake(run)


def stray_child() -> None:
    """A grandchild in a session of its own, as torchrun makes them, does not outlive the run."""
    with stage.surroundings(**stage.fake(child=True)):
        run = queue.submit(stage.order())
        stage.noticed(run, "finished")
        stage.until(lambda: not run.alive(), "the run's end")
    child = next(event["pid"] for event in run.events() if event.get("pid"))
    stage.until(lambda: not _alive(child), "the child's end", 40)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def two_pages() -> None:
    """Two pages move one queue: each run is started once, and never two at a time."""
    loop = "end = time.monotonic() + 60\nwhile time.monotonic() < end:\n    queue.advance()\n    time.sleep(0.05)\n"
    with stage.surroundings(**stage.fake(pause=0.01)):
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
        stage.noticed(run, "finished")
        stage.check_fake(run)
        assert sum(event.get("name") == "starting" for event in run.events()) == 1


def two_supervisors() -> None:
    """Four supervisors are started on one run at the same moment: one carries it out, the others say that they are
    not needed.
    """
    with stage.surroundings(**stage.fake(pause=0.1)):
        run = create(stage.order())
        each = [
            subprocess.Popen([sys.executable, "-m", "studio.supervise", "--detach", str(run.folder)], cwd=PROJECT)
            for _ in range(4)
        ]
        assert sorted(one.wait(stage.WAIT) for one in each) == [queue.UP, *[queue.BUSY] * 3]
        stage.noticed(run, "finished")
        stage.until(lambda: not run.alive(), "its end")
    stage.check_fake(run)
    assert sum(event.get("name") == "starting" for event in run.events()) == 1


def clock_step(seconds: int) -> None:
    """The time of day steps in the middle of a run; what is asked of it meanwhile counts all the same."""
    run = stage.finished_run(clock=seconds)
    stage.noticed(run, "finished")
    stage.check_fake(run)
    assert summary(run)["seconds"] >= 0
    with stage.surroundings(**stage.fake(pause=0.05)):
        first, second = queue.submit(stage.order("first")), queue.submit(stage.order("second"))
        stage.until(lambda: stage.ended(first) and stage.ended(second), "both ends")
    starts = [next(event["at"] for event in run.events() if event.get("name") == "starting") for run in (first, second)]
    assert starts[0] <= starts[1]


def extended_after_a_step_back() -> None:
    """The clock is set back an hour, then a running run is extended: the extension counts."""
    with stage.surroundings(**stage.fake(pause=0.05)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        goal.extend(run, 3)
        file = run.folder / "changes.json"
        file.write_text(json.dumps([{**change, "at": change["at"] - 3600} for change in json.loads(file.read_text())]))
        stage.until(lambda: summary(run)["attempt"] == 2 and stage.ended(run), "the second end")
    stage.noticed(run, "finished")
    stage.check_fake(run, 24)


def middle_ones_bad() -> None:
    """Four queued, one that fails, one whose order was spoilt, the page killed in between: each ends as it should."""
    with stage.surroundings(**stage.fake(pause=0.03)):
        page = stage.page("for name in ('first', 'bad', 'spoilt', 'last'): queue.submit(order(name))\ntime.sleep(60)\n")
        stage.until(lambda: len(runs()) == 4, "four runs")
        named = {run.config.name: run for run in runs()}
        page.kill()
        page.wait()
        (named["spoilt"].folder / "config.yaml").write_bytes(b"\xff\x00: [")
        stage.until(lambda: all(stage.ended(run) for run in runs()), "all ends")
    stage.check_fake(named["first"])
    stage.check_fake(named["last"])
    stage.noticed(named["bad"], "failed", "this run is bad", "log")
    stage.noticed(named["spoilt"], "failed", "config.yaml", "same settings")


def many_runs(count: int = 200) -> str:
    """Processor time of listing a home with many runs, in a fresh process and when asked again; and of moving the
    queue on.
    """
    one = stage.finished_run()
    for number in range(count - 1):
        copy = subfolder("runs") / f"{one.id}-{number}"
        copy.mkdir()
        for name in ("config.yaml", "events.jsonl", "log.txt", "lock"):
            (copy / name).write_bytes((one.folder / name).read_bytes())
    code = (
        "import time\nfrom studio import queue, run\nfrom studio.ui.live import listing\n"
        "def took(what):\n    began = time.process_time(); what(); return round(1000 * "
        "(time.process_time() - began), 1)\n"
        "first = took(lambda: [run.summary(one) for one in run.runs()])\nadvanced = took(queue.advance)\n"
        "listing.rows(); listing.forget()\nprint(first, took(lambda: [run.summary(one) for one in "
        "run.runs()]), advanced, took(listing.rows))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "STUDIO_HOME": str(home())},
    )
    first, again, advanced, page = map(float, done.stdout.split())
    stage.noticed(one, "finished")
    assert max(first, again, advanced, page) < stage.within[0] * 1000 / 50, done.stdout  # 200 ms in the long form
    return (
        f"{count} runs: {first} ms at first, {again} ms again, {advanced} ms to move the queue on, "
        f"{page} ms for the page"
    )


def died_in_the_dark() -> None:
    """A run whose supervisor was killed while nobody looked: the webhook hears of it once, from whoever looks first."""
    with listening() as (address, told), stage.surroundings(**stage.fake(pause=0.1), STUDIO_WEBHOOK=address):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        stage.kill(stage.supervisor(run))
        looks = (
            "from studio.runs import end_hooks\nfor _ in range(10):\n"
            "    queue.advance()\n    end_hooks.catch_up()\n    time.sleep(0.1)\n"
        )
        pages = [stage.page(looks) for _ in range(3)]
        stage.noticed(run, "lost", "ended without a word", "Resume", "lost")
        for one in pages:
            one.wait(stage.WAIT)
        assert [item["run"]["state"] for item in told] == ["lost"], told
        stage.bring_home(run)
        stage.until(lambda: len(told) > 1, "the second post")
        assert [item["run"]["state"] for item in told] == ["lost", "finished"]
        stage.until(lambda: not stage.leftovers(), "the mark's end")
