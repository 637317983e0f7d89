"""Forgetting is what transformers' own forward says it is, for every method, and measuring changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from studio import config, general
from studio.methods import METHODS
from studio.run import Run, create, summary
from studio.worker import base_answers, keep_general
from tests.methods.variants import title

METHODS_TRIED: list[dict[str, Any]] = [*({"name": name} for name in METHODS), {"name": "lora", "init": "pissa"}]


@pytest.fixture(autouse=True)
def few_items(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, braked = general.measured()[:40], general.braked()[:20]
    monkeypatch.setattr(general, "measured", lambda: measured)
    monkeypatch.setattr(general, "braked", lambda: braked)


def order(model: Path, data: Path, method: dict[str, Any], more: dict[str, Any] | None = None, **training: Any) -> Any:
    return config.build(
        {
            "model": str(model),
            "data": {"train": str(data), "eval": 0.2, **(more or {})},
            "method": method,
            "training": {
                "max_steps": 4,
                "save_every": 2,
                "eval_every": 2,
                "batch_size": 4,
                "accumulation": 1,
                "threads": 1,
                "keep_checkpoints": 9,
                "learning_rate": 5e-3,
                "probe": False,
                "samples": 0,
                **training,
            },
        }
    )


def trained(ordered: Any) -> Run:
    from studio.worker.train import main

    run = create(ordered)
    assert main(run) == 0
    return run


def weights(run: Run) -> bytes:
    (file,) = run.result.glob("*.safetensors")
    return file.read_bytes()


def measures(run: Run) -> list[dict[str, Any]]:
    return [event for event in run.events() if event["kind"] == "forgetting"]


@pytest.mark.parametrize("method", METHODS_TRIED, ids=title)
def test_measuring_changes_no_weight(home: Path, tiny_model: Path, tiny_data: Path, method: dict[str, Any]) -> None:
    """The brake is on: it works for every method too."""
    measured, not_measured = (
        trained(order(tiny_model, tiny_data, method, forgetting=measures, keep_general=1)) for measures in (True, False)
    )
    assert weights(measured) == weights(not_measured)
    assert [(event["step"], bool(event.get("final"))) for event in measures(measured)] == [
        (0, False),
        (2, False),
        (4, False),
        (4, True),
    ]
    first, last = measures(measured)[0], measures(measured)[-1]
    assert last["items"] == 40
    assert last["kl"] >= 0
    assert last["kinds"]["code"]["kl"] >= 0
    if method["name"] in ("full", "lora", "ia3"):  # they begin as the base
        assert abs(first["kl"]) < 1e-5
        assert abs(first["loss_rise"]) < 1e-4
    assert summary(measured)["forgetting"]["verdict"] == last["verdict"]


@pytest.mark.parametrize("packing", [True, False])
def test_the_figures_are_those_of_plain_forward_passes(
    home: Path, tiny_model: Path, tiny_data: Path, packing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against transformers' eager attention, one item at a time, over the whole vocabulary, new tokens among it."""
    from transformers import AutoModelForCausalLM

    from studio.tokens import Encoder

    monkeypatch.setattr(base_answers, "TOP", 10_000)
    ordered = order(tiny_model, tiny_data, {"name": "full"}, forgetting=True, packing=packing)
    run = trained(ordered)
    rows = base_answers.encode(Encoder.from_order(ordered.data, tiny_model), general.measured())
    base, tuned = (
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        for folder in (tiny_model, run.result)
    )
    rises, divergences = [], []
    with torch.no_grad():
        for _, row in rows:
            before, after = (
                model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1].log_softmax(-1)
                for model in (base, tuned)
            )
            places = base_answers.targets_of(row)
            targets = [row["labels"][place + 1] for place in places]
            rises.append((before[places, targets] - after[places, targets]).mean())
            divergences.append((before.exp() * (before - after)).sum(-1)[places].mean())
    last = measures(run)[-1]
    assert last["loss_rise"] == pytest.approx(float(torch.stack(rises).mean()), abs=1e-3)
    assert last["kl"] == pytest.approx(float(torch.stack(divergences).mean()), abs=1e-3)


def test_the_kl_over_the_kept_tokens_is_a_close_lower_bound() -> None:
    """On random distributions as peaked as a language model's."""
    random = torch.Generator().manual_seed(0)
    base = (4 * torch.randn(50, 5000, generator=random)).log_softmax(-1)
    model = (base + 0.5 * torch.randn(50, 5000, generator=random)).log_softmax(-1)
    whole = (base.exp() * (base - model)).sum(-1)
    top, ids = base.topk(base_answers.TOP, -1)
    bound = base_answers.divergence(model, base_answers.Target(ids.int(), top, top[:, 0]))
    assert (bound <= whole + 1e-4).all()
    assert bound.mean() > 0.6 * whole.mean()
    itself = base_answers.divergence(base, base_answers.Target(ids.int(), top, top[:, 0]))
    assert itself.abs().max() < 1e-5


@pytest.mark.parametrize("name", ["lora", "full"])
def test_with_new_tokens(home: Path, tiny_model: Path, tiny_data: Path, name: str) -> None:
    run = trained(order(tiny_model, tiny_data, {"name": name}, {"new_tokens": ["<mark>"]}, forgetting=True))
    assert abs(measures(run)[0]["kl"]) < 1e-5 < measures(run)[-1]["kl"]


def test_a_short_run_is_not_slowed_down(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    run = trained(order(tiny_model, tiny_data, {"name": "lora"}))
    assert measures(run) == []
    assert summary(run)["forgetting"] is None


@pytest.mark.parametrize(("name", "by"), [("full", "kl"), ("lora", "replay"), ("prefix", "replay")])
def test_the_brake_survives_a_resume_bit_by_bit(
    home: Path, tiny_model: Path, tiny_data: Path, name: str, by: str
) -> None:
    from studio.worker.train import main

    ordered = order(tiny_model, tiny_data, {"name": name}, forgetting=True, keep_general=1, keep_general_by=by)
    whole, cut = trained(ordered), create(ordered)
    shutil.copytree(whole.checkpoints / "checkpoint-2", cut.checkpoints / "checkpoint-2")
    assert main(cut) == 0
    assert weights(cut) == weights(whole)
    assert measures(cut)[-1]["kl"] == measures(whole)[-1]["kl"]
    assert [event["brake"] for event in whole.events() if event["kind"] == "step"][-1] > 0


def test_the_probe_tries_the_brake(
    home: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.worker.train import main

    probed, plain = (
        trained(order(tiny_model, tiny_data, {"name": "lora"}, keep_general=1, probe=probe)) for probe in (True, False)
    )
    assert weights(probed) == weights(plain), "it leaves nothing behind"

    def without_room(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(keep_general.Brake, "__call__", without_room)
    run = create(order(tiny_model, tiny_data, {"name": "lora"}, keep_general=1, probe=True))
    assert main(run) == 1
    assert "before the first step" in run.events()[-1]["cause"]
    assert not [event for event in run.events() if event["kind"] == "step"]


def test_the_brake_brakes(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    free, held = (
        trained(order(tiny_model, tiny_data, {"name": "full"}, forgetting=True, max_steps=12, keep_general=strength))
        for strength in (0, 10)
    )
    assert measures(held)[-1]["kl"] < 0.6 * measures(free)[-1]["kl"]


def test_the_best_checkpoint_lies_on_the_frontier(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    """It is that of the least held-out loss plus KL, which is not that of the least loss here."""
    ordered = order(
        tiny_model, tiny_data, {"name": "full"}, forgetting=True, keep_best=True, max_steps=12, learning_rate=2e-2
    )
    run = trained(ordered)
    losses = {event["step"]: event["loss"] for event in run.events() if event["kind"] == "eval"}
    moved = {event["step"]: event["kl"] for event in measures(run) if not event.get("final")}
    best = min((step for step in losses if step), key=lambda step: losses[step] + moved[step])
    end = next(event for event in run.events() if event["kind"] == "end")
    assert end["step"] == best
    by_loss = trained(ordered.with_changes(training={"best_by": "loss"}))
    end = next(event for event in by_loss.events() if event["kind"] == "end")
    assert end["step"] == min((step for step in losses if step), key=losses.__getitem__)


def test_the_batches_of_the_brake_are_small(tiny_model: Path) -> None:
    from studio.data.order import DataOrder
    from studio.tokens import Encoder

    encoder = Encoder.from_order(DataOrder(train="sample"), tiny_model)
    rows = [row for _, row in base_answers.encode(encoder, general.braked(), general.BRAKE_TOKENS)]
    batches = keep_general.group(rows)
    assert sorted(number for batch in batches for number in batch) == list(range(len(rows)))
    for batch in batches:
        widest = max(len(rows[number]["input_ids"]) for number in batch)
        assert len(batch) == 1 or widest * len(batch) <= general.BRAKE_TOKENS
