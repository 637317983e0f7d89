"""An evaluation of a run on the tiny model: losses and answers against transformers', short memory, a stop."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio import evaluating, supervise
from studio import run as runs
from studio.device import devices
from studio.errors import DeviceError, RunError
from studio.evaluation.order import EvaluationOrder
from studio.events import Lock
from studio.run import Run
from studio.runs import claim, evaluations
from studio.talk.reference import resolve
from studio.tokens import Encoder
from studio.worker import evaluate as worker
from studio.worker.generate import Batch
from studio.worker.loaded import LoadedModels
from studio.worker.sampling import Sampling
from tests.worker.carrying import carry, order, rows, shorten

pytestmark = pytest.mark.usefixtures("home")
FEW = EvaluationOrder(rows=6, max_new_tokens=8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.json")


@pytest.fixture
def tuned(tiny_model: Path, data: Path) -> Run:
    run = order(tiny_model, data, "data.eval=0.3")
    carry(run)
    return run


def measure(run: Run, monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    """evaluating.evaluate with the worker in this process: what it emits is what it would print."""
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "emit", lambda kind, **fields: emitted.append({"kind": kind, **fields}))

    def carry_out(job: Any, worker_order: dict[str, Any]) -> bool:
        worker.main(json.loads(json.dumps(worker_order)))
        for event in emitted:
            job._take(json.loads(json.dumps(event)))
        return False

    monkeypatch.setattr(evaluating._Job, "carry_out", carry_out)
    return evaluating.evaluate(run, FEW, **options)


def test_losses_and_answers_are_those_of_transformers(
    tuned: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure(tuned, monkeypatch)
    events = [event for event in tuned.events() if event["kind"] == "eval"]
    assert found["base"]["loss"] == pytest.approx(events[0]["loss"], rel=2e-3)
    assert found["tuned"]["loss"] == pytest.approx(events[-1]["loss"], rel=2e-3)
    assert found["base"]["token_accuracy"] == pytest.approx(events[0]["accuracy"], abs=0.01)
    assert found["tuned"]["token_accuracy"] == pytest.approx(events[-1]["accuracy"], abs=0.01)
    assert found["tuned"]["answered"] == 6
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    encoder = Encoder(tiny_model, resolve(f"base:{tuned.id}").template)
    for row in found["table"]:
        ids = torch.tensor([encoder.prompt_ids([{"role": "user", "content": row["prompt"]}])])
        ended = list(worker.LoadedModels().load(resolve(f"base:{tuned.id}")).end_ids)
        out = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=ended, pad_token_id=0)
        assert encoder.tokenizer.decode(out[0, ids.shape[1] :].tolist()) == row["base"]
        assert row["reference"].startswith("The number is")
    assert evaluations.results(tuned)["table"] == found["table"], "kept in the run's folder"
    assert evaluating.status(tuned)["state"] == "done"
    forgotten = runs.summary(tuned)["forgetting"]  # the run was too short to measure it by itself
    assert forgotten["final"]
    assert forgotten["items"] == 200
    assert forgotten["kl"] > 0
    assert runs.summary(tuned)["eval_accuracy"] == pytest.approx(events[-1]["accuracy"])


def test_rows_without_room_are_left_out_on_both_sides(tuned: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(tuned, monkeypatch)
    shorten(monkeypatch, 40)
    found = measure(tuned, monkeypatch)
    assert 0 < found["tuned"]["rows"] < whole["tuned"]["rows"]
    assert found["tuned"]["rows"] == found["base"]["rows"]
    assert any("its loss is left out" in note for note in found["notes"])
    assert found["verdict"]


def test_token_accuracy_is_the_share_of_likeliest_tokens(tuned: Run, tiny_model: Path) -> None:
    """Against transformers' logits, token by token, with both losses."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = [1, 50, 60, 70, 80, 90, 2]
    labels = [-100, -100, 60, 70, 80, 90, 2]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    likeliest = logits[:-1].argmax(-1).tolist()
    hits = sum(a == b for a, b in zip(likeliest, labels[1:]) if b != -100)
    labels[3] = likeliest[2]  # at least one that is hit
    hits = sum(a == b for a, b in zip(likeliest, labels[1:]) if b != -100)
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(labels[1:]), reduction="sum")
    with torch.inference_mode():
        total, targets, correct = worker.row_loss(model, ids, labels)
    assert (targets, correct) == (5, hits)
    assert total == pytest.approx(float(loss), rel=1e-4)


class ShortOfMemory(Batch):
    """A batch on a card that holds `room` answers at most."""

    room = 2

    def prefill_group(self, answers: Sequence[Any]) -> None:
        if len(self.answers) >= self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        super().prefill_group(answers)


@pytest.mark.parametrize("room", [2, 0])
def test_short_memory_halves_the_batch_and_loses_no_question(
    room: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answers as with all the room; without room for even one, it counts as failed and the rest goes on."""
    notes: list[str] = []
    monkeypatch.setattr(worker, "emit", lambda kind, **fields: notes.append(fields.get("text", "")))
    model = LoadedModels("cpu", torch.float32).load(resolve(str(tiny_model)))
    asked = [([{"role": "user", "content": f"Say the number {n}."}], {}) for n in range(7)]
    sampling = Sampling(max_tokens=6, temperature=0)
    whole = dict(worker.answered(model, asked, sampling, 7))
    monkeypatch.setattr(worker, "Batch", ShortOfMemory)
    monkeypatch.setattr(ShortOfMemory, "room", room)
    model.batch = ShortOfMemory(model.model)
    short = dict(worker.answered(model, asked, sampling, 8))
    assert sorted(short) == list(range(7))
    if room:
        assert short == whole
        assert any("answers at once from now on" in note for note in notes)
    else:
        assert {one.finish for one in short.values()} == {"failed"}


def test_a_question_without_room_in_the_context_is_kept_and_said(tiny_model: Path) -> None:
    model = LoadedModels("cpu", torch.float32).load(resolve(str(tiny_model)))
    long = "word " * (model.context_length + 10)
    asked = [([{"role": "user", "content": text}], {}) for text in ("Hi", long, "Ho")]
    found = dict(worker.answered(model, asked, Sampling(max_tokens=3, temperature=0), 4))
    assert [found[place].finish == "too long" for place in range(3)] == [False, True, False]


def test_the_device_is_claimed(tuned: Run) -> None:
    lock = claim.device_lock(devices()[0])
    assert lock.acquire()
    try:
        with pytest.raises(DeviceError):
            evaluating.evaluate(tuned, FEW)
    finally:
        lock.release()
    own = Lock(evaluations.folder(tuned) / "lock")
    assert own.acquire()
    try:
        with pytest.raises(RunError, match="already"):
            evaluating.evaluate(tuned, FEW)
    finally:
        own.release()


def test_a_stop_ends_the_worker_and_keeps_what_both_answered(
    tuned: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker that would never end, in a process of its own, is asked to stop after two answers of both sides."""
    script = (
        "import json, time\n"
        "for row in (1, 2):\n"
        "    for side in ('base', 'tuned'):\n"
        "        event = dict(kind='answer', side=side, row=row, text='x', finish='stop', tokens=1)\n"
        "        print(json.dumps(event), flush=True)\n"
        "time.sleep(600)\n"
    )
    module = tmp_path / "endless_worker.py"
    module.write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(evaluating, "WORKER", "endless_worker")
    monkeypatch.setattr(
        evaluating,
        "_questions",
        lambda rows, order, last: [
            {
                "row": n,
                "prompt": f"{n}?",
                "messages": [{"role": "user", "content": "?"}],
                "tools": None,
                "reference": "x",
            }
            for n in (1, 2, 3)
        ],
    )

    def stop_after_four(told: dict[str, Any]) -> None:
        if told["done"] == 4:
            evaluating.job(tuned).request_stop()

    monkeypatch.setattr(evaluating._Job, "_tell", lambda job, at_once: stop_after_four({"done": job.answered}))
    found = evaluating.evaluate(tuned, FEW)
    assert (found["state"], len(found["table"]), found["questions"]) == ("stopped", 2, 3)
    assert found["tuned"]["exact_match"] == 1
    assert evaluating.status(tuned)["state"] == "stopped"


def test_after_training_where_the_order_says_so(tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(evaluating, "evaluate", lambda run, claimed: called.append(run.id) if claimed else None)
    plain, asked = (order(tiny_model, data, *more) for more in ((), ("evaluation.rows=3",)))
    for run in (plain, asked):
        run.append("end", state="finished")
        supervise._evaluate(run)
    stopped = order(tiny_model, data, "evaluation.rows=3")
    stopped.append("end", state="stopped")
    supervise._evaluate(stopped)
    assert called == [asked.id]


def test_perplexity_is_the_exponential_of_the_loss(tuned: Run) -> None:
    told = runs.summary(tuned)
    assert told["eval_perplexity_before"] == pytest.approx(math.exp(told["eval_loss_before"]))


def test_general_questions_without_room_are_left_out_and_said(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a run that did not measure them; its losses and answers are there as with them."""

    def without_room(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    run = order(tiny_model, data, "data.eval=0.3", "training.forgetting=false")
    carry(run)
    with monkeypatch.context() as short:
        short.setattr(worker.AfterTraining, "__call__", without_room)
        found = measure(run, short)
    assert any("Forgetting is not measured" in note for note in found["notes"])
    assert not runs.summary(run)["forgetting"]
    plenty = measure(run, monkeypatch)
    assert runs.summary(run)["forgetting"]["final"]
    assert (found["table"], found["tuned"]) == (plenty["table"], plenty["tuned"])


def test_a_killed_evaluation_is_told_and_can_be_begun_again(tuned: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL while the worker loads or answers: neither the device nor the folder stays taken."""
    command = [sys.executable, "-m", "studio", "eval", tuned.id, "--json"]
    job = evaluating.job(tuned)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while job.status().get("doing") in (None, "starting", "reading data"):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert job.status()["state"] == "cut off"
    assert measure(tuned, monkeypatch)["state"] == "done"
    assert job.status()["state"] == "done"
