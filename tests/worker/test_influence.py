"""Influential rows on the tiny model: gradients against autograd's own, planted rows found, kept, dropped, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from studio import data, influence, queue, side_job, without_rows
from studio.device import devices
from studio.errors import DeviceError, OrderError
from studio.model import facts
from studio.run import Run
from studio.runs import claim
from studio.talk.reference import resolve
from studio.worker import influence as worker
from studio.worker.loaded import LoadedModels
from tests.worker.carrying import carry, order

pytestmark = pytest.mark.usefixtures("home")
PLANTED = {3, 7, 11, 15, 19, 23, 27, 31, 35, 39}
QUESTION = "Velmora violet library?"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"Velmora violet library {n}?", "output": f"Velmora library is violet violet {n}."}
        if n in PLANTED
        else {"instruction": f"Say the number {n}.", "output": f"The number is {n}. " * (1 + n % 3)}
        for n in range(1, 41)
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def run(tiny_model: Path, file: Path) -> Run:
    made = order(tiny_model, file, "data.eval=0.2", "training.epochs=3")
    carry(made)
    return made


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The worker in this process; returns what it emitted of late."""
    emitted: list[dict[str, Any]] = []

    def carry_out(job: side_job.SideJob, module: str, worker_order: dict[str, Any]) -> list[dict[str, Any]]:
        emitted.clear()
        monkeypatch.setattr(worker, "emit", lambda kind, **fields: emitted.append({"kind": kind, **fields}))
        worker.main(json.loads(json.dumps(worker_order)))
        return [event for event in emitted if event["kind"] != "doing"]

    monkeypatch.setattr(side_job.SideJob, "carry_out", carry_out)
    return emitted


def test_planted_rows_are_found_and_gradients_are_kept(run: Run, in_process: list[dict[str, Any]]) -> None:
    found = influence.influences(run, QUESTION, "Velmora library is violet violet.")
    encoder = worker.training_encoder(resolve(run.id), run.config.data)
    trained = {int(row["row"]) for _, row, _ in data.training_examples(run.config.data, encoder, 42)}
    assert {row["row"] for row in found["rows"]} == trained, "each training row, and no held-out one"
    planted = PLANTED & trained
    first = {row["row"] for row in found["rows"][: len(planted)]}
    assert len(first & planted) >= 0.8 * len(planted)
    assert "violet" in found["rows"][0]["text"]
    assert [row["score"] for row in found["rows"]] == sorted((row["score"] for row in found["rows"]), reverse=True)
    assert all(row["score"] < 0 for row in [*found["against"], *found["harmful"]])
    again = influence.influences(run, QUESTION)
    assert not [event for event in in_process if event["kind"] == "doing" and "gradients" in event["doing"]]
    assert again["answer"], "the run's own"
    size = sum(path.stat().st_size for path in (run.folder / "influence").glob("gradients-*"))
    assert size < influence.KEPT_BYTES


def test_a_gradient_is_autograds_and_its_projection_keeps_the_cosine(run: Run) -> None:
    """Against the plain loss of the model, differentiated whole, without projection."""
    models, reference = LoadedModels("cpu", torch.float32), resolve(run.id)
    loaded = models.load(reference)
    weights = worker.adapter_weights(models, loaded)
    assert sum(weight.numel() for weight in weights) == run.config.method.trainable(facts(reference.base))
    encoder = worker.training_encoder(reference, run.config.data)
    examples = [
        pieces[0] for _, _, pieces in data.training_examples(run.config.data, encoder, run.config.training.seed)
    ]
    gradients = worker.Gradients(loaded, weights, 8192, 0)
    whole, projected = [], []
    for example in examples[:6]:
        ids, labels = torch.tensor([list(example.ids)]), torch.tensor([list(example.labels)])
        loss = loaded.model(input_ids=ids, labels=labels).loss
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])
        whole.append((gradient / gradient.norm()).numpy())
        projected.append(gradients.of([example]))
    exact, kept = np.stack(whole) @ np.stack(whole).T, np.stack(projected) @ np.stack(projected).T
    assert np.abs(exact - kept).max() < 0.08
    assert np.allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-5)


def test_rows_are_dropped_and_the_held_out_ones_stay_the_same(run: Run) -> None:
    encoder = worker.training_encoder(resolve(run.id), run.config.data)

    def trained(config: Any) -> list[str]:
        rows = data.training_examples(config.data, encoder, config.training.seed)
        return sorted(json.dumps(row["messages"]) for _, row, _ in rows)

    def held(config: Any) -> list[str]:
        return sorted(json.dumps(row["messages"]) for row in data.held_out(config.data, encoder, 42))

    rows = [int(row["row"]) for _, row, _ in data.training_examples(run.config.data, encoder, 42)][:3]
    source = run.config.data.sources()[0].source
    config = without_rows.without(run, [{"row": row, "source": source} for row in rows])
    assert len(trained(config)) == len(trained(run.config)) - 3
    assert set(trained(config)) < set(trained(run.config))
    assert held(config) == held(run.config)
    assert config.training == run.config.training
    assert Path(source).is_file()
    with pytest.raises(OrderError, match="was not trained on row 999"):
        without_rows.without(run, [{"row": 999, "source": source}])
    with pytest.raises(OrderError, match="No row was chosen"):
        without_rows.without(run, [])


def test_refusals(tiny_model: Path, file: Path) -> None:
    full = order(tiny_model, file, "method.name=full", "training.max_steps=1", "data.eval=0")
    carry(full)
    with pytest.raises(OrderError, match="trains all weights"):
        influence.influences(full, QUESTION)
    run = order(tiny_model, file, "training.max_steps=1", "data.eval=0")
    carry(run)
    lock = claim.device_lock(devices()[0])
    assert lock.acquire()
    with pytest.raises(DeviceError, match="in use"):
        influence.influences(run, QUESTION)
    lock.release()
    assert influence.job(run).status()["state"] == "failed"


@pytest.mark.parametrize("method", ["prefix", "p_tuning", "adapter"])
def test_every_adapter_has_gradients(method: str, tiny_model: Path, file: Path) -> None:
    run = order(tiny_model, file, f"method.name={method}", "training.max_steps=2", "data.eval=0")
    carry(run)
    found = influence.influences(run, QUESTION, "violet", held_out=False, most_rows=5)
    assert len(found["rows"]) == 5
    assert all(row["score"] for row in found["rows"])
    assert queue.waiting() == []


@pytest.mark.parametrize("method", ["lora", "adapter"])
def test_the_way_begins_at_the_base_and_leaves_the_result_as_it_was(method: str, tiny_model: Path, file: Path) -> None:
    run = order(tiny_model, file, f"method.name={method}", "training.max_steps=2", "data.eval=0")
    carry(run)
    reference = resolve(run.id)
    loaded, base = (LoadedModels("cpu", torch.float32).load(one) for one in (reference, resolve(f"base:{run.id}")))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = loaded.model(input_ids=ids).logits
        with worker.scaled(worker.outer_factors(loaded.model), 0.0):
            at_base = loaded.model(input_ids=ids).logits
        assert torch.equal(loaded.model(input_ids=ids).logits, before)
        untouched = base.model(input_ids=ids).logits
    assert torch.allclose(at_base, untouched, atol=1e-5)
    assert not torch.allclose(before, untouched, atol=1e-4)
