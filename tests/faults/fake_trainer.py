"""A trainer without torch: a chain of hashes instead of weights, the same files, diary and manners as the real one.

STUDIO_FAKE: JSON of what it should do; a run whose name begins with `bad` ends at step 2 with a traceback. steps,
pause (seconds a step), save_every, phases {name: seconds}, output (bytes of log a step), deaf (ignores SIGTERM),
weight (bytes of a checkpoint), clock (seconds by which the time of day steps at step 5), linger (seconds after
the end line), child (starts one that outlives it), orphan (outlives its supervisor), nan_at, blind (does not look
at the stop file), oom_at (runs out of memory at that step), line (bytes of one line that never ends), result
(bytes of the model)
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from studio.home import write_atomic
from studio.run import Run
from studio.runs import checkpoints, results

ORDERED: dict[str, Any] = {
    "steps": 12,
    "pause": 0.01,
    "save_every": 4,
    "phases": {},
    "output": 0,
    "deaf": False,
    "linger": 0,
    "child": False,
    "weight": 0,
    "clock": 0,
    "orphan": False,
    "nan_at": None,
    "blind": False,
    "oom_at": None,
    "line": 0,
    "result": 0,
    **json.loads(os.environ.get("STUDIO_FAKE", "{}")),
}


def advanced(weights: str, step: int) -> str:
    """One training step: the next link of the chain."""
    return hashlib.sha256(f"{weights} {step}".encode()).hexdigest()


def reference(steps: int) -> str:
    """The weights of an uninterrupted run."""
    weights = ""
    for step in range(1, steps + 1):
        weights = advanced(weights, step)
    return weights


class Trainer:
    def __init__(self, run: Run):
        self.run, self.attempt, self.weights, self.step = run, int(os.environ.get("STUDIO_ATTEMPT", 1)), "", 0
        goal = max(
            ORDERED["steps"], int(ORDERED["steps"] * run.config.training.epochs / 3)
        )  # 3: what an order says by default
        self.steps = run.config.training.max_steps or goal

    def say(self, kind: str, **fields: Any) -> None:
        self.run.append(kind, attempt=self.attempt, **fields)

    def phase(self, name: str, **fields: Any) -> None:
        self.say("phase", name=name, **fields)
        print(name, flush=True)
        time.sleep(ORDERED["phases"].get(name, 0))

    def train(self) -> None:
        for name in ("fetching model", "reading data", "loading model"):
            self.phase(name)
        self.say("plan", steps=self.steps, epochs=self.run.config.training.epochs)
        found = checkpoints.newest(self.run.checkpoints)
        if found:
            checkpoints.refuse_other_data(found, "rows")
            state = json.loads((found / "trainer_state.json").read_text())
            self.step, self.weights = state["global_step"], (found / "model.bin").read_text()
        for _ in range(ORDERED["line"] // 1_000_000):
            print("x" * 1_000_000, end="", flush=True)
        self.phase("training", from_step=self.step)
        while self.step < self.steps and not (self.run.stop_file.exists() and not ORDERED["blind"]):
            self.one_step()
        self.finish()

    def one_step(self) -> None:
        self.step += 1
        self.weights = advanced(self.weights, self.step)
        time.sleep(ORDERED["pause"])
        if ORDERED["output"]:
            print(f"{self.step} " + "x" * ORDERED["output"], flush=True)
        if self.step == 5 and ORDERED["clock"]:
            now = time.time
            time.time = lambda: now() + ORDERED["clock"]
        if self.step == 2 and self.run.config.name and self.run.config.name.startswith("bad"):
            raise RuntimeError("this run is bad")
        if self.step == ORDERED["oom_at"]:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        loss = float("nan") if self.step == ORDERED["nan_at"] else round(4 / self.step, 4)
        self.say("step", step=self.step, epoch=self.step / 4, loss=loss, learning_rate=1e-4, tokens=10 * self.step)
        for what in self.run.take_requests():
            self.say("note", level="info", text=f"asked to {what}")
        if (
            self.step % ORDERED["save_every"] == 0
            or self.step == self.steps
            or (self.run.stop_file.exists() and not ORDERED["blind"])
        ):
            self.save()

    def save(self) -> None:
        self.phase("saving")
        try:
            with checkpoints.writing(self.run.checkpoints, self.step) as temporary:
                self.write(temporary / f"checkpoint-{self.step}")
            path = checkpoints.complete(self.run.checkpoints, self.step, "rows")
        except OSError as error:
            if not checkpoints.disk_is_full(error):
                raise
            self.say("note", level="warning", text=str(error))
        else:
            self.say("saved", step=self.step, path=path.name, what="checkpoint")
            checkpoints.rotate(self.run.checkpoints, 2)
        self.phase("training")

    def write(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.bin").write_text(self.weights)
        (folder / "padding.bin").write_bytes(os.urandom(ORDERED["weight"]))
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": self.step}))
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            with zipfile.ZipFile(folder / name, "w") as file:
                file.writestr("data", self.weights * 10)

    def finish(self) -> None:
        stop = self.run.stop_request() if not ORDERED["blind"] else None
        if stop == "discard":
            self.say("end", state="stopped", cause="Stopped and discarded as asked.")
            return
        self.phase("saving")
        with results.replacing(self.run.result) as folder:
            (folder / "model.bin").write_text(self.weights)
            if ORDERED["result"]:
                (folder / "padding.bin").write_bytes(os.urandom(ORDERED["result"]))
            write_atomic(folder / "manifest.json", json.dumps({"step": self.step}))
        self.say("saved", step=self.step, path="model", what="model")
        self.say(
            "end",
            state="stopped" if stop else "finished",
            cause="Stopped as asked." if stop else None,
            step=self.step,
            cpu=time.process_time(),
        )


def main() -> None:
    if ORDERED["deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if ORDERED["orphan"]:
        ctypes.CDLL(None).prctl(1, 0)  # no signal at the parent's death, as on other systems
    trainer = Trainer(Run(Path(sys.argv[1])))
    if ORDERED["child"]:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        trainer.say("note", level="info", text="a child", pid=child.pid)
    time.sleep(ORDERED["phases"].get("import", 0))
    trainer.train()
    time.sleep(ORDERED["linger"])


if __name__ == "__main__":
    main()
