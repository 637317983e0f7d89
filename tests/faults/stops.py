"""Stops in every phase, Ctrl-C, and a terminal that is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from studio import process, queue
from studio.home import PROJECT, home
from studio.run import Run, summary
from studio.runs import goal
from tests.faults import stage

PHASES = {
    "import": {"phases": {"import": 30}},
    "fetching model": {"phases": {"fetching model": 30}},
    "reading data": {"phases": {"reading data": 30}},
    "training": {"pause": 0.2},
    "saving": {"pause": 0.01, "phases": {"saving": 0.7}},
}


def stop_in(phase: str, how: bool = False, **ordered: object) -> None:
    """Stop in a phase: the process tree is gone within 15 s, the state is right, and the next run starts at once."""
    with stage.surroundings(**stage.fake(**{"child": True, **PHASES[phase], **ordered})):
        run = queue.submit(stage.order())
        seen = "starting" if phase == "import" else phase
        stage.until(lambda: (run.state_event() or {}).get("name") == seen, f"the phase {phase}")
        queue.stop(run, how)
        assert run.state() in ("stopping", "stopped")
        began = time.monotonic()
        stage.until(lambda: stage.ended(run) and not process.holders(run.trainer_lock), "the process tree's end", 15)
        told = summary(run)
        stage.seen.append(
            stage.Seen(told["state"], told["cause"] or "", told["action"] or "", time.monotonic() - began)
        )
    assert told["state"] == "stopped", told
    assert told["cause"].startswith("Stopped"), told
    assert told["saved"] == (phase in ("training", "saving") and not how), told
    if how:
        assert not [path for path in (run.checkpoints, run.result) if path.exists()]
    with stage.surroundings(**stage.fake(steps=2)):
        after = queue.submit(stage.order("after"))
        assert after.state() in ("starting", "running", "finished")
        stage.until(lambda: stage.ended(after), "the next run's end")
    assert after.state() == "finished"


def stopped_while_standing_still() -> None:
    """A trainer under SIGSTOP does not hear a stop: SIGKILL ends it."""
    with stage.surroundings(**stage.fake(pause=0.1), STUDIO_STOP_TERM="1"):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        stage.trainers(run)[0].send_signal(signal.SIGSTOP)
        queue.stop(run)
        stage.noticed(run, "stopped", "Stopped as asked", "Resume")


def result_killed_while_stopping() -> None:
    """A stop whose trainer dies while it writes the result: stopped, the checkpoint is kept, and `finish` makes the
    model of it, without a step.
    """
    with stage.surroundings(**stage.fake(pause=0.2), STUDIO_CRASH_AT="result.written"):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        queue.stop(run)
        stage.noticed(run, "stopped", "checkpoint is kept", "Resume")
    stage.until(lambda: not run.alive(), "its end")
    trained = stage.steps_told(run)
    with stage.surroundings(**stage.fake()):
        goal.finish(run)
        stage.until(lambda: stage.ended(run), "the result")
    assert summary(run)["saved"]
    assert stage.steps_told(run) == trained


# -- the terminal


def _train(*more: str) -> tuple[subprocess.Popen[str], Path]:
    """`train` in the foreground of a terminal of its own, as far as signals go."""
    order = home() / "order.yaml"
    order.write_text("name: typed\ndata: {train: sample}\n")
    words = home() / "said"
    said = open(words, "w")  # noqa: SIM115 - it goes with the process
    return subprocess.Popen(
        [sys.executable, "-m", "studio", "train", str(order), *more],
        cwd=PROJECT,
        stdout=said,
        stderr=said,
        text=True,
        start_new_session=True,
    ), words


def _typed() -> Run:
    return stage.until(stage.the_run, "the run")


def ctrl_c() -> None:
    """Ctrl-C in the foreground: the run keeps what it learnt, and the terminal says so and what to do."""
    with stage.surroundings(**stage.fake(pause=0.2)):
        typed, words = _train()
        run = _typed()
        stage.until(lambda: len(stage.steps_told(run)) > 1, "two steps")
        os.killpg(typed.pid, signal.SIGINT)
        assert typed.wait(stage.WAIT) == 0
        stage.noticed(run, "stopped", "Stopped as asked")
    said = words.read_text()
    assert "stopping after this step" in said, said
    assert "Ctrl-C again" in said, said
    assert "Traceback" not in said, said
    assert summary(run)["saved"]


def ctrl_c_twice() -> None:
    """A second Ctrl-C leaves the run to itself and says how to look at it."""
    with stage.surroundings(**stage.fake(pause=0.2, blind=True, steps=30)):
        typed, words = _train()
        run = _typed()
        stage.until(lambda: len(stage.steps_told(run)) > 1, "two steps")
        os.killpg(typed.pid, signal.SIGINT)
        stage.until(lambda: "Ctrl-C again" in words.read_text(), "the words")
        os.killpg(typed.pid, signal.SIGINT)
        typed.wait(stage.WAIT)
        said = words.read_text()
        assert f"show {run.id}" in said, said
        assert "Traceback" not in said, said
        assert run.state() == "stopping"


def ctrl_c_early(after: float) -> None:
    """Ctrl-C while the run is only just being queued: no traceback, and nothing is left half way."""
    with stage.surroundings(**stage.fake(steps=2)):
        typed, words = _train()
        time.sleep(after)
        os.killpg(typed.pid, signal.SIGINT)
        typed.wait(stage.WAIT)
        assert "Traceback" not in words.read_text(), words.read_text()
        queue.advance()
        run = stage.the_run()
        if run is not None:
            stage.until(lambda: stage.ended(run), "the run's end")
        assert not stage.leftovers()


def hang_up() -> None:
    """The terminal is closed: the run goes on."""
    with stage.surroundings(**stage.fake(pause=0.1)):
        typed, _ = _train()
        run = _typed()
        stage.until(lambda: stage.steps_told(run), "the first step")
        os.killpg(typed.pid, signal.SIGHUP)
        assert typed.wait(stage.WAIT) == 128 + signal.SIGHUP  # by way of every finally
        stage.noticed(run, "finished")
    stage.until(lambda: not run.alive(), "its end")
    stage.check_fake(run)
