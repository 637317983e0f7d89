"""A run folder as a trainer writes it, without a trainer; and a model server that answers from a list.

For the page's tests and shots.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from studio import benchmark
from studio.evaluation import results
from studio.evaluation.order import EvaluationOrder
from studio.evaluation.task import detect
from studio.home import subfolder

PROMPTS = ("How do I clean a window?", "What is a library?")


class FakeRun:
    """Writes config.yaml, events.jsonl and log.txt the way supervisor and trainer do; holds the lock while it is
    `alive`.
    """

    def __init__(
        self,
        name: str,
        steps: int = 300,
        method: str = "lora",
        seed: int = 0,
        age: float = 3600.0,
        model: str = "starter",
        data: str = "sample",
        hold: bool = False,
        stage: str = "sft",
    ):
        self.folder = subfolder("runs") / name
        (self.folder / "checkpoints").mkdir(parents=True)
        knobs = "  rank: 16\n  alpha: 32\n" if "lora" in method else ""
        (self.folder / "config.yaml").write_text(
            f"name: {name[16:]}\nmodel: {model}\ndata:\n  train: {data}\n"
            f"{'' if stage == 'sft' else f'stage: {stage}'}\nmethod:\n  name: {method}\n{knobs}"
            f"training:\n  epochs: 3\n  seed: {seed}\n"
        )
        self.events_file, self.log, self.lock = self.folder / "events.jsonl", self.folder / "log.txt", None
        self.steps, self.attempt, self.tokens, self.best, self.chance = steps, 0, 0, math.inf, random.Random(seed)
        self.now, self.data, self.stage = time.time() - age, data, stage
        self.say("phase", name="queued", hold=hold)  # on hold: a page that starts does not start it

    def say(self, kind: str, **fields: Any) -> None:
        line = {"at": round(self.now, 3), "kind": kind, "attempt": self.attempt, **fields}
        with open(self.events_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def print(self, text: str) -> None:
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def take(self) -> None:
        self.lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def free(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def start(self, alive: bool = True, from_step: int = 0) -> None:
        if alive and self.lock is None:
            self.take()
        self.attempt += 1
        for name in ("starting", "fetching model", "reading data", "loading model"):
            self.say("phase", name=name)
            self.print(f"[12:00:00] {name}")
            self.now += 0.5
        self.say(
            "plan",
            steps=self.steps,
            epochs=3,
            rows=120,
            eval_rows=8,
            trainable=4_884_480,
            parameters=134_515_008,
            estimated_memory=1_450_000_000,
            effective_batch=16,
            stage=self.stage,
            data={
                "sources": [{"source": self.data, "fingerprint": f"of {self.data}", "rows": 128, "format": "alpaca"}],
                "dropped": {"empty_field": {"count": 2, "rows": "3, 17"}},
                "eval": {"rows": 8, "of": 9, "dropped": {"leak": {"count": 1, "rows": "40"}}},
            },
        )
        if not from_step:
            self.say("phase", name="evaluating")
            self.say("eval", step=0, loss=3.1, accuracy=0.41, best=True, **self.preference(0.0))
            self.forget(0)
            for prompt in PROMPTS:
                self.say("sample", step=0, prompt=prompt, answer=f"Sure! {prompt}", reference="In short: the answer.")
        self.say("phase", name="training", from_step=from_step)

    def preference(self, share: float) -> dict[str, Any]:
        """What a run that compares answers has learnt to prefer, after this share of it."""
        if self.stage == "sft":
            return {}
        grown, noise = 1 - math.exp(-4 * share), self.chance.gauss(0, 0.03)
        values = {
            "accuracy": min(1.0, 0.5 + 0.42 * grown + noise),
            "chosen": 0.4 * grown + noise,
            "rejected": -1.3 * grown + noise,
            "logps_chosen": -62.0 + 4 * grown + 20 * noise,
            "logps_rejected": -70.0 - 13 * grown + 20 * noise,
            "length_chosen": 41.0 + 30 * noise,
            "length_rejected": 33.0 + 30 * noise,
        }
        return {"preference": values | {"margin": values["chosen"] - values["rejected"]}}

    def step(self, at: int) -> None:
        """One step's line, and every tenth of the run an evaluation, samples and a checkpoint."""
        share, chance = at / self.steps, self.chance
        self.tokens += chance.randint(900, 1200)
        self.now += 0.6
        loss = (
            0.6
            + 2.4 * math.exp(-5 * share)
            + chance.gauss(0, 0.12 * (0.4 + math.exp(-3 * share)))
            + (2 if chance.random() < 0.004 else 0)
        )
        rate = 2e-4 * min(1, at / (0.03 * self.steps + 1)) * (0.5 + 0.5 * math.cos(math.pi * share))
        norm = abs(chance.gauss(0.9, 0.2) + 2 * math.exp(-20 * share))
        self.say(
            "step",
            step=at,
            epoch=round(3 * share, 4),
            loss=round(loss, 4),
            learning_rate=rate,
            grad_norm=round(norm, 4),
            tokens=self.tokens,
            tokens_per_second=round(chance.gauss(1700, 60), 1),
            memory=int(1.1e9 + 2e8 * min(1, at / 50)),
            seconds=round(at * 0.6, 2),
            **self.preference(share),
        )
        self.print(f"step {at}/{self.steps}  loss {loss:.4f}  1700 tokens/s")
        if at % max(1, self.steps // 10) == 0:
            self.evaluate(at, 0.75 + 2.3 * math.exp(-4.6 * share) + 0.25 * share * share)

    def evaluate(self, at: int, loss: float) -> None:
        self.say("phase", name="evaluating")
        compared = self.preference(at / self.steps)
        accuracy = round(0.9 - loss / 6, 4)
        self.say("eval", step=at, loss=round(loss, 4), accuracy=accuracy, best=loss < self.best, **compared)
        self.best = min(self.best, loss)
        self.forget(at)
        for prompt in PROMPTS:
            self.say(
                "sample",
                step=at,
                prompt=prompt,
                answer=f"In short: the answer at step {at}.\nWhy: it was trained {at} steps.\nTry: a later one.",
            )
        self.say("saved", step=at, path=f"checkpoints/checkpoint-{at}", what="checkpoint", bytes=58_000_000)
        self.say("phase", name="training")

    def forget(self, at: int, **more: Any) -> None:
        share = at / self.steps
        kinds = {"code": {"loss_rise": 0.2 * share, "kl": 0.3 * share}, "zh": {"loss_rise": 0.1, "kl": 0.2 * share}}
        figures = {"loss_rise": round(0.12 * share, 4), "kl": round(0.24 * share**2, 4), "low": 0.08, "high": 0.16}
        verdict = "slightly" if share > 0.6 else "kept"
        self.say("forgetting", step=at, **figures, verdict=verdict, items=200, kinds=kinds, **more)

    def train(self, upto: int | None = None, first: int = 1) -> FakeRun:
        for at in range(first, (upto or self.steps) + 1):
            self.step(at)
        return self

    def finish(self) -> FakeRun:
        self.say("phase", name="saving")
        (self.folder / "model").mkdir(exist_ok=True)
        manifest = {"base": "starter", "method": {"name": "lora"}, "template": "chatml", "step": self.steps}
        (self.folder / "model" / "manifest.json").write_text(json.dumps(manifest))
        steps = ["Set training.keep_general to 1: it holds the model near the base on general questions."]
        self.forget(self.steps, final=True, advice=steps)
        self.say("saved", step=self.steps, path="model", what="model", bytes=19_800_000)
        self.say("end", state="finished", peak_memory=1_300_000_000, step=self.steps)
        self.free()
        return self

    def evaluated(self, rows: int = 60) -> FakeRun:
        """An evaluation of short answers: the base is right at every eighth, the tuned one at two thirds."""
        order, task = EvaluationOrder(), detect(["Paris", "Rome", "Oslo"])
        table = []
        for n in range(1, rows + 1):
            asked = {"prompt": f"What is the capital of country {n}?\nAnswer in one word.", "reference": f"City {n}"}
            right = {"base": n % 8 == 0, "tuned": n % 3 != 0}
            answers = {
                side: {
                    "text": asked["reference"] if right[side] else f"I think that it is town {n} 城市。",
                    "finish": "stop" if side == "tuned" or n % 2 else "length",
                    "tokens": 3 if right[side] else 9,
                }
                for side in right
            }
            table.append(results.table_row(n, asked, answers, task, order))
        losses = {
            side: [{"loss": 10 * each + n % 7, "tokens": 10.0, "correct": hit} for n in range(rows)]
            for side, each, hit in (("base", 3.1, 4.0), ("tuned", 0.9, 7.0))
        }
        (self.folder / "evaluation").mkdir()
        found = {
            "at": self.now,
            "seconds": 84.0,
            "state": "done",
            "questions": rows,
            "notes": [],
            **results.collect(losses, table, task),
            "table": table,
        }
        (self.folder / "evaluation" / "results.json").write_text(json.dumps(found))
        return self

    def benchmarked(self) -> FakeRun:
        """Two tasks of lm-eval: one of choices, which the tuned model does better, one of free answers from a file."""
        rows = {
            side: [
                {
                    "task": "arc_easy",
                    "metric": metric,
                    "filter": "none",
                    "value": right / 500,
                    "stderr": 0.0215,
                    "each": [1.0] * right + [0.0] * (500 - right),
                    "higher_is_better": True,
                    "questions": 500,
                    "shots": 0,
                    "version": 1.0,
                }
                for metric, right in (("acc", count), ("acc_norm", count - 30 if side == "base" else count - 95))
            ]
            for side, count in (("base", 243), ("tuned", 301))
        }
        common = {
            "limit": 500,
            "shots": None,
            "seconds": 412.0,
            "lm_eval": "0.4.13",
            "notes": [],
            "base": {},
            "tuned": {},
        }
        table = benchmark.table(rows["base"], rows["tuned"])
        own = [{**row, "task": "opposites", "metric": "exact_match", "questions": 60} for row in table[:1]]
        named = {"task": "arc_easy", "name": "arc_easy", "chat": False, "functions": [], "at": self.now, "table": table}
        file = {"task": "/data/opposites.yaml", "name": "opposites.yaml", "chat": True, "functions": ["words.strip"]}
        found = [{**common, **named}, {**common, **file, "at": self.now - 900, "table": own}]
        (self.folder / "benchmarks").mkdir()
        text = json.dumps({"at": self.now, "state": "done", "results": found})
        (self.folder / "benchmarks" / "results.json").write_text(text)
        return self

    def influenced(self) -> FakeRun:
        """A search for influential rows: ten that pushed, some that pulled against, some that hurt."""
        text = "user: How do I clean a window?\nassistant: Answer: Wipe it with vinegar and paper. 用醋和报纸擦。"

        def entries(first: float, numbers: range) -> list[dict[str, Any]]:
            return [{"row": n, "score": first - n / 200, "source": self.data, "text": text} for n in numbers]

        found = {
            "at": self.now,
            "seconds": 42.0,
            "prompt": "How do I clean a window?",
            "answer": "Wipe it with vinegar.",
            "rows": entries(0.7, range(3, 13)),
            "against": entries(-0.1, range(20, 24)),
            "harmful": entries(-0.2, range(40, 43)),
            "of": 92,
            "left_out": 0,
        }
        (self.folder / "influence").mkdir()
        (self.folder / "influence" / "results.json").write_text(json.dumps(found))
        return self

    def fail(
        self,
        cause: str = "The device ran out of memory.",
        action: str = "Use a smaller batch, a shorter max length or a smaller model, then resume.",
        reason: str = "memory",
    ) -> FakeRun:
        self.print(
            "Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
        )
        self.say("end", state="failed", code=1, cause=cause, action=action, reason=reason)
        self.free()
        return self


class FakeServer:
    """Stands for studio.worker.serve: status, load, end, and streamed answers, word by word."""

    def __init__(self, pause: float = 0.0):
        self.pause, self.models, self.asked = pause, [], []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self.lock = os.open(subfolder("locks") / "chat", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        address = f"http://127.0.0.1:{self.http.server_address[1]}"
        (subfolder("locks") / "chat.json").write_text(json.dumps({"address": address, "key": "k", "pid": os.getpid()}))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, model: str, prompt: str) -> str:
        if model.startswith("base"):
            return (
                f"Sure! {prompt} That is a very good question, "
                "and there are many things one could say about it. First of all, it depends."
            )
        return (
            "**In short:** wipe it with warm water and a drop of soap.\n\n**Why:** soap loosens grease.\n\n"
            "**Try:** dry it with newspaper."
        )

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        os.close(self.lock)
        Path(subfolder("locks") / "chat.json").unlink(missing_ok=True)


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer

    def do_GET(self) -> None:
        self._json(
            {
                "models": self.fake.models,
                "doing": None,
                "busy": False,
                "pid": os.getpid(),
                "memory": 612_000_000,
                "seconds": 3.0,
            }
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        if self.path == "/studio/load":
            self.fake.models = list(dict.fromkeys([*self.fake.models, *body["names"]]))
            self._json({"models": self.fake.models})
        elif self.path == "/studio/end":
            self._json({"ended": True})
            threading.Thread(target=self.fake.close, daemon=True).start()
        else:
            self._stream(body)

    def _json(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: dict[str, Any]) -> None:
        self.fake.asked.append(body)
        self.send_response(200)
        self.end_headers()
        words = self.fake.answer(body["model"], body["messages"][-1]["content"]).split(" ")
        for place, word in enumerate(words):
            self._event(
                {"choices": [{"delta": {"content": word if place == 0 else f" {word}"}, "finish_reason": None}]}
            )
            time.sleep(self.fake.pause)
        self._event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        self._event(
            {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(words), "tokens_per_second": 21.5}}
        )

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Quiet."""
