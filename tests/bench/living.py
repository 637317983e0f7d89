"""A run that is alive without a trainer, for a bench of what looks on: its diary grows by a step a second."""

from __future__ import annotations

import fcntl
import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

NAME = "2026-01-01-0000-bench"


class Living:
    """`points` steps at once, then one a second. `written`: step -> the moment (seconds since 1970) its line was whole
    on disk.
    """

    def __init__(self, home: Path, points: int):
        self.folder, self.step, self.written = home / "runs" / NAME, 0, {}
        self._end, self.points = threading.Event(), points

    def __enter__(self) -> Living:
        self.folder.mkdir(parents=True)
        (self.folder / "config.yaml").write_text("name: bench\nmodel: starter\ndata: {train: sample}\n")
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._file = open(self.folder / "events.jsonl", "w", encoding="utf-8")
        self._say("phase", name="training", from_step=0)
        self._say("plan", steps=2 * self.points + 10_000, epochs=1)
        for _ in range(self.points):
            self._next()
        self._file.flush()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._file.close()
        os.close(self._lock)

    def _say(self, kind: str, **fields: Any) -> None:
        self._file.write(json.dumps({"at": round(time.time(), 3), "kind": kind, "attempt": 1, **fields}) + "\n")

    def _next(self) -> None:
        self.step += 1
        noise = random.random()
        self._say(
            "step",
            step=self.step,
            epoch=self.step / 10_000,
            loss=1 + 2 / (1 + self.step / 500) + 0.2 * noise,
            learning_rate=1e-4 * (1 + noise),
            grad_norm=1 + noise,
            tokens=self.step * 512,
            tokens_per_second=1500 + 100 * noise,
            memory=10**9,
            seconds=self.step * 0.5,
        )

    def _go_on(self) -> None:
        while not self._end.wait(1.0):
            self._next()
            self._file.flush()
            self.written[self.step] = time.time()
