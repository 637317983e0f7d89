"""The same with the real trainer on a tiny model: after any kill the final weights are those of the uninterrupted
run, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache

from studio import queue
from studio.config import RunConfig, build
from studio.forecast.remedies import repairs
from studio.home import home
from studio.run import Run, create, summary
from tests import tiny
from tests.faults import stage

STEPS = 12
POINTS = (
    "supervise.launched",
    "events.loading model",
    "events.training",
    "events.step#3",
    "events.step#7",
    "events.half#16",
    "checkpoint.begun#2",
    "checkpoint.written#2",
    "checkpoint.manifest#2",
    "checkpoint.renamed#2",
    "checkpoint.rotated",
    "events.evaluating",
    "result.written",
    "events.end",
)
MOVES_ON = "while True:\n    queue.advance()\n    time.sleep(0.1)\n"  # what a page does


def order(name: str) -> RunConfig:
    """Twelve steps with dropout, accumulation and a checkpoint every three, so that a resume comes in the middle of
    an epoch.
    """
    rows, model = home() / "rows.json", home() / "tiny"
    if not rows.exists():
        tiny.write(model)
        rows.write_text(
            json.dumps(
                [
                    {"instruction": f"Say the number {n}.", "input": "", "output": f"The number is {n}."}
                    for n in range(40)
                ]
            )
        )
    return build(
        {
            "name": name,
            "model": str(model),
            "data": {"train": str(rows), "eval": 0.1},
            "method": {"name": "lora", "rank": 4, "dropout": 0.1},
            "training": {
                "max_steps": STEPS,
                "batch_size": 2,
                "accumulation": 2,
                "save_every": 3,
                "eval_every": 6,
                "learning_rate": 0.01,
                "threads": 1,
                "checkpointing": False,
                "keep_checkpoints": 2,
            },
        }
    )


def weights(run: Run) -> str:
    """The hash of all trained tensors."""
    return hashlib.sha256((run.result / "adapter_model.safetensors").read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def reference() -> tuple[str, dict[int, float]]:
    """Hash and losses of a run that nothing disturbs; carried out in this process, which has torch already where
    more than one cell asks.
    """
    from studio.worker import train

    with tempfile.TemporaryDirectory() as folder, stage.surroundings(STUDIO_HOME=folder):
        run = create(order("reference"))
        with open(run.log, "w") as log, redirect_stdout(log), redirect_stderr(log):
            assert train.main(run) == 0, run.state_event()
        return weights(run), losses(run)


def losses(run: Run) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in stage.current_events(run.events()) if event["kind"] == "step"}


def check(run: Run) -> None:
    wanted = reference()
    stage.check_whole(run, STEPS)
    assert losses(run) == wanted[1]
    assert weights(run) == wanted[0]


def die_at(point: str) -> str:
    """Kill at a named point, recover, compare with the reference. Returns how often it had to be resumed."""
    reference()
    with stage.surroundings(STUDIO_CRASH_AT=point):
        run = queue.submit(order("killed"))
        stage.until(lambda: not run.alive() and not stage.trainers(run), "the processes die", 180)
    if point == "events.end":
        stage.noticed(run, "finished")
    elif point.startswith("supervise"):
        stage.noticed(run, "lost", "ended without a word", "Resume", "lost")
    else:
        stage.noticed(run, "failed", "was killed (SIGKILL)", "Resume", "killed")
    times = stage.bring_home(run, 240)
    check(run)
    return f"resumed {times} ×"


def random_kill(seed: int) -> str:
    """One to three kills of a random process at random times, then home. Returns what was done."""
    reference()
    order("killed")  # writes model and rows
    done, run = struck(
        stage.page("from tests.faults import real\nqueue.submit(real.order('killed'))\n" + MOVES_ON),
        random.Random(seed),
        3,
    )
    stage.bring_home(run, 240)
    check(run)
    return done


def struck(page: subprocess.Popen[bytes], chance: random.Random, most: int) -> tuple[str, Run]:
    """A run that this page submits, and up to `most` kills of page, supervisor, trainer or group, each up to 30
    lines of the diary and a moment after the one before: so they come in every phase, however long each takes.
    After each the owner starts the app again.

    Returns what was done, and the run.
    """
    done = []
    try:
        run = stage.until(stage.the_run, "the run")
        for _ in range(chance.randint(1, most)):
            lines = len(run.events()) + chance.randint(0, 30)
            stage.until(lambda lines=lines: len(run.events()) >= lines or stage.ended(run), "the moment", 240)
            time.sleep(chance.uniform(0, 0.3))
            if run.state() == "finished" and not run.alive():
                break
            victim = chance.choice(("page", "supervisor", "trainer", "group"))
            done.append(f"{victim} in {(run.state_event() or {}).get('name', 'end')}")
            if victim == "page":
                page.kill()
            else:
                _strike(run, victim)
            queue.advance()
            if stage.ended(run) and run.state() != "finished":
                queue.resume(run)
    finally:
        page.kill()
        page.wait()
    return ", ".join(done), run


def _strike(run: Run, victim: str) -> None:
    """Kill the run's supervisor, its trainer, or both."""
    above, below = stage.supervisor(run), stage.trainers(run)
    if victim != "trainer":
        stage.kill(above)
    if victim != "supervisor":
        for one in below:
            stage.kill(one)
    stage.until(
        lambda: victim == "trainer" or above is None or not above.is_running() or above.status() == "zombie",
        "the death",
    )


# -- faults that only the real trainer can show


def unreadable_model() -> None:
    """Weights that are no weights: failed, named, with an action, and the next run is not touched by it."""
    spoilt = home() / "spoilt"
    good = order("good")
    tiny.write(spoilt)
    (spoilt / "model.safetensors").write_bytes(b"\xff" * 1000)
    run = queue.submit(good.with_changes(model={"source": str(spoilt)}, name="spoilt"))
    stage.until(lambda: summary(run)["phase"] == "fetching model" or stage.ended(run), "the trainer's first word", 120)
    stage.noticed(run, "failed", "", "")
    told = summary(run)
    assert told["action"], told
    assert told["reason"] == "model", told


def out_of_memory(probe: bool, short_of: str = "tokens", batch: int = 8) -> str:
    """A device that is full: with the probe it is said before the first step, without it at the first large batch;
    ranked changes are offered, and the first of them, one click, finishes with the same effective batch.
    """
    rows = home() / "long.json"
    rows.write_text(
        json.dumps([{"instruction": "Count.", "input": "", "output": "one two three four " * 100} for _ in range(40)])
    )
    large = {"batch_size": batch, "accumulation": 1, "max_steps": 2, "packing": False, "probe": probe, "loss": "full"}
    with stage.surroundings(STUDIO_TRAINER="tests.faults.short_of_memory", STUDIO_SHORT_OF=short_of):
        run = queue.submit(order("large").with_changes(training=large, data={"train": str(rows), "max_length": 512}))
        stage.until(lambda: stage.ended(run), "the run's end", 180)
        stage.noticed(
            run, "failed", "ran out of memory" + (" on the largest batch" if probe else ""), "batch", "memory"
        )
        assert not stage.steps_told(run)
        offered = repairs(run)
        saves = [item["saves"] for item in offered if item["resumes"]]
        assert saves, offered
        assert saves == sorted(saves, reverse=True), offered
        first = offered[0]
        training = run.config.with_changes(**first["change"]).training
        assert training.batch_size * training.accumulation == batch, first
        queue.resume(run, first["change"], why=f"after an out-of-memory: {first['text']}")
        stage.until(lambda: stage.ended(run), "the repaired run's end", 180)
    assert run.state() == "finished", summary(run)
    return f"{len(offered)} changes offered, first: {first['text']}, saves {first['saves'] // 10**6} MB"
