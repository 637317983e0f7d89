"""The same with the real trainer on a tiny model: after any kill the final weights are those of the uninterrupted run, bit for bit."""

from __future__ import annotations

import hashlib
import json
import random
import time

from studio import queue
from studio.config import RunConfig, build
from studio.home import home
from studio.run import Run, summary
from tests import tiny
from tests.faults import stage

STEPS = 12
POINTS = ("supervise.launched", "events.loading model", "events.training", "events.step#3", "events.step#7", "events.half#16", "checkpoint.begun#2",
          "checkpoint.written#2", "checkpoint.manifest#2", "checkpoint.renamed#2", "checkpoint.rotated", "events.evaluating", "result.written", "events.end")


def order(name: str) -> RunConfig:
    """Twelve steps with dropout, accumulation and a checkpoint every three, so that a resume comes in the middle of an epoch."""
    rows, model = home() / "rows.json", home() / "tiny"
    if not rows.exists():
        tiny.write(model)
        rows.write_text(json.dumps([{"instruction": f"Say the number {n}.", "input": "", "output": f"The number is {n}."} for n in range(40)]))
    return build({"name": name, "model": str(model), "data": {"train": str(rows), "eval": 0.1}, "method": {"name": "lora", "rank": 4, "dropout": 0.1},
                  "training": {"max_steps": STEPS, "batch_size": 2, "accumulation": 2, "save_every": 3, "eval_every": 6, "learning_rate": 0.01, "threads": 1,
                               "checkpointing": False, "keep_checkpoints": 2}})


def weights(run: Run) -> str:
    """The hash of all trained tensors."""
    return hashlib.sha256((run.result / "adapter_model.safetensors").read_bytes()).hexdigest()


def reference() -> tuple[str, dict[int, float]]:
    """Hash and losses of a run that nothing disturbs."""
    run = queue.submit(order("reference"))
    stage.until(lambda: stage.ended(run), "the reference", 180)
    assert run.state() == "finished", summary(run)
    return weights(run), losses(run)


def losses(run: Run) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in stage.current(run.events()) if event["kind"] == "step"}


def check(run: Run, wanted: tuple[str, dict[int, float]]) -> None:
    stage.check_whole(run, STEPS)
    assert losses(run) == wanted[1]
    assert weights(run) == wanted[0]


def die_at(point: str, wanted: tuple[str, dict[int, float]]) -> int:
    """Kill at a named point, recover, compare with the reference. Returns how often it had to be resumed."""
    with stage.surroundings(STUDIO_CRASH_AT=point):
        run = queue.submit(order("killed"))
        stage.until(lambda: not run.alive() and not stage.trainers(run), "the processes die", 180)
    times = stage.bring_home(run, 240)
    check(run, wanted)
    return times


def random_kill(seed: int, wanted: tuple[str, dict[int, float]]) -> str:
    """One to three kills of a random process at random times, then home. Returns what was done."""
    chance = random.Random(seed)
    run = queue.submit(order("killed"))
    done = []
    for _ in range(chance.randint(1, 3)):
        done.append(kill_one(run, chance, 12.0))
        queue.advance()
        if stage.ended(run) and run.state() != "finished":
            queue.resume(run)
    stage.bring_home(run, 240)
    check(run, wanted)
    return ", ".join(done)


def kill_one(run: Run, chance: random.Random, longest: float) -> str:
    """Wait a random time, then kill supervisor, trainer, or both."""
    time.sleep(chance.uniform(0, longest))
    victim = chance.choice(("supervisor", "trainer", "group"))
    above, below = stage.supervisor(run), stage.trainers(run)
    if victim != "trainer":
        stage.kill(above)
    if victim != "supervisor":
        for one in below:
            stage.kill(one)
    phase = (run.turn() or {}).get("name", "end")
    stage.until(lambda: not run.alive() or run.state() == "finished" or victim == "trainer", "the death")
    return f"{victim} in {phase}"


def unreadable_model() -> None:
    """Weights that are no weights: failed, named, with an action, and the next run is not touched by it."""
    spoilt = home() / "spoilt"
    good = order("good")
    tiny.write(spoilt)
    (spoilt / "model.safetensors").write_bytes(b"\xff" * 1000)
    run = queue.submit(good.changed(model={"source": str(spoilt)}, name="spoilt"))
    stage.until(lambda: stage.ended(run), "the run's end", 120)
    told = summary(run)
    assert told["state"] == "failed", told
    assert told["action"], told
    assert told["reason"] != "bug", told


