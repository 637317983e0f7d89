"""Stages that compare answers: every method under each, the reference, gradients, runs and their resume."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from studio import config, kernels
from studio.errors import StudioError
from studio.methods import METHODS
from studio.run import Run, create, summary
from studio.stages import STAGES
from studio.stages.dpo import DPO
from studio.worker import reward_head
from studio.worker.head import Head, HeadLosses, LogitTransform
from studio.worker.packing import collate
from studio.worker.preference import PreferenceRows
from tests.methods import architectures
from tests.worker.carrying import killed_at_step
from tests.worker.comparing import LAYOUTS, PAIRS, QUICK, VERDICTS, encoded, loss_of, objective_of

COMPARING = [name for name, stage in STAGES.items() if stage.examples in ("pairs", "verdicts")]
ROWS = {"pairs": PAIRS, "verdicts": VERDICTS}


@pytest.mark.parametrize("room", [2**25, 400 * 4 * 5])
@pytest.mark.parametrize("transform", [LogitTransform(), LogitTransform(2.0, 5.0)])
@pytest.mark.parametrize("trains_head", [False, True])
def test_gradients_of_each_token(
    room: int, transform: LogitTransform, trains_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever weight each token's log-probability has, the gradient is that of torch's log softmax."""
    monkeypatch.setitem(kernels.LOGIT_CHUNK_BYTES, "cpu", room)
    torch.manual_seed(0)
    hidden, weight = torch.randn(23, 16, requires_grad=True), torch.randn(400, 16, requires_grad=trains_head)
    targets, scales = torch.randint(0, 400, (23,)), torch.randn(23)
    leaves = [hidden, weight] if trains_head else [hidden]
    logits = functional.linear(hidden, weight) * transform.scale
    logits = torch.tanh(logits / transform.cap) * transform.cap if transform.cap else logits
    expected = logits.log_softmax(-1).gather(-1, targets[:, None]).flatten()
    head = Head(weight, None, transform, torch.float32)
    found = -HeadLosses.apply(hidden, weight, None, None, head, targets, False)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    for mine, theirs in zip(
        torch.autograd.grad((found * scales).sum(), leaves),
        torch.autograd.grad((expected * scales).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_under_every_stage(name: str, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    """A gradient for what is trained; where the adapter starts as nothing, the reference is the model itself."""
    method = METHODS[name]()
    model = method.wrap(method.load(tiny_model, torch.float32))
    reward_head.add(model)
    for stage_name in COMPARING:
        stage = STAGES[stage_name]()
        assert not stage.why_not(method)
        rows = encoded(ROWS[stage.examples], stage.examples, tmp_path, tiny_model)
        reference = None
        if stage.uses_reference and not method.adapter:
            reference = numpy.zeros((len(rows), 2), numpy.float32)
        loss, metrics = loss_of(stage, model, rows, reference=reference)
        loss.backward()
        grads = [weight.grad for weight in model.parameters() if weight.requires_grad and weight.grad is not None]
        assert any(grad.abs().max() > 0 for grad in grads)
        model.zero_grad()
        if stage.uses_reference and name in ("lora", "qlora", "adapter", "ia3"):
            assert metrics["chosen"] == pytest.approx(0, abs=1e-3)


def test_a_cached_reference_is_the_adapter_switched_off(tiny_model: Path, home: Path, tmp_path: Path) -> None:
    rows = encoded(PAIRS, "pairs", tmp_path, tiny_model)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    cached = objective_of(DPO(), base).cache_reference(rows, LAYOUTS["packed"])
    method = METHODS["lora"](dropout=0.0)
    model = method.wrap(method.load(tiny_model, torch.float32))
    torch.manual_seed(1)
    for parameter_name, weight in model.named_parameters():
        if "lora_B" in parameter_name:
            weight.data.normal_(0, 0.1)
    switched, _ = loss_of(DPO(), model, rows)
    from_cache, _ = loss_of(DPO(), model, rows, reference=cached)
    assert abs(switched.item() - 0.6931) > 1e-3
    assert from_cache.item() == pytest.approx(switched.item(), abs=1e-5)


def order(stage: Any, method: Any, model: Path, folder: Path, **training: Any) -> config.RunConfig:
    name = stage if isinstance(stage, str) else stage["name"]
    rows = [
        {"prompt": f"Say number {n}, please", "chosen": f"Number {n}.", "rejected": "No, never. " * (1 + n % 2)}
        for n in range(24)
    ]
    if name == "kto":
        rows = [{"prompt": r["prompt"], "completion": r[s], "label": s == "chosen"} for r in rows for s in list(r)[1:]]
    file = folder / "compared.json"
    file.write_text(json.dumps(rows))
    settings = {"max_steps": 6, "eval_every": 3, "save_every": 3, "batch_size": 4, "accumulation": 2, **QUICK}
    return config.build(
        {
            "model": str(model),
            "data": {"train": str(file), "eval": 0.25},
            "stage": stage,
            "method": method,
            "training": {**settings, "learning_rate": 3e-3, "keep_checkpoints": 9, **training},
        }
    )


def weights(run: Run) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(run.result.glob("*.safetensors")))


@pytest.mark.parametrize(
    ("stage", "method"),
    [
        ("dpo", "lora"),
        ("kto", "full"),
        ("orpo", "lora"),
        ("dpo", {"name": "lora", "init": "pissa"}),
        ("reward", "lora"),
    ],
)
def test_a_run_learns_and_resumes_to_the_same_bits(
    stage: str, method: Any, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from studio.worker.train import main

    whole, cut = (create(order(stage, method, tiny_model, tmp_path)) for _ in range(2))
    assert main(whole) == 0
    assert killed_at_step(cut, 5, main) == -signal.SIGKILL
    assert not cut.result.exists()
    assert main(cut) == 0
    assert [event["from_step"] for event in cut.events() if event.get("name") == "training" and "from_step" in event][
        -1
    ] == 3
    assert weights(cut) == weights(whole)
    figures = summary(whole)
    assert (figures["stage"], figures["state"]) == (stage, "finished")
    assert figures["eval_loss"] < figures["eval_loss_before"]
    before, after = figures["preference_before"], figures["preference"]
    assert set(after) == set(STAGES[stage].metrics)
    assert after["accuracy"] > 0.8
    assert after["margin"] > before["margin"]
    assert (whole.result / "score.safetensors").exists() == (stage == "reward")
    if STAGES[stage]().uses_reference:
        assert before["accuracy"] == pytest.approx(0.5)
        assert before["margin"] == pytest.approx(0, abs=1e-5)
    steps = [event for event in whole.events() if event["kind"] == "step"]
    assert all(set(event["preference"]) >= {"chosen", "rejected"} for event in steps)
    assert (whole.folder / "reference.npz").exists() == (method != "lora")


def test_a_reference_lost_with_the_folder_is_taken_anew(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """After a resume the model is the base until the checkpoint is read: the same log-probabilities."""
    from studio.worker.train import main

    whole, cut = (create(order("dpo", "full", tiny_model, tmp_path)) for _ in range(2))
    assert main(whole) == 0
    shutil.copytree(whole.checkpoints / "checkpoint-3", cut.checkpoints / "checkpoint-3")
    assert main(cut) == 0
    assert weights(cut) == weights(whole)


def test_the_reference_is_asked_only_of_rows_that_are_drawn(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the training loop reads, by a spy; a run that is made longer asks of the others."""
    from studio.worker.train import main

    read: set[int] = set()
    plain = PreferenceRows.__getitem__

    def spy(self: PreferenceRows, number: int) -> Any:
        if self.reference is not None and len(self) == 18:  # of the other six it is evaluated
            read.add(number)
        return plain(self, number)

    monkeypatch.setattr(PreferenceRows, "__getitem__", spy)
    run = create(order("dpo", "full", tiny_model, tmp_path, max_steps=1))
    assert main(run) == 0
    first = dict(numpy.load(run.folder / "reference.npz"))
    drawn = sorted(read)
    assert numpy.isfinite(first["train"][:, 0]).nonzero()[0].tolist() == drawn
    assert len(drawn) == 8
    assert numpy.isfinite(first["eval"]).all()
    yaml = run.folder / "config.yaml"
    yaml.write_text(yaml.read_text().replace("max_steps: 1", "max_steps: 3"))
    assert main(Run(run.folder)) == 0
    longer = dict(numpy.load(run.folder / "reference.npz"))
    assert numpy.isfinite(longer["train"]).all()
    assert (longer["train"][drawn] == first["train"][drawn]).all()
    notes = [event["text"] for event in run.events() if "log-probabilities of" in event.get("text", "")]
    assert ["14 rows" in notes[0], "10 rows" in notes[1]] == [True, True]


def test_a_stop_is_heard_while_the_reference_is_taken(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    from studio.worker.train import main

    run = create(order("dpo", "full", tiny_model, tmp_path))
    run.request_stop()
    assert main(run) == 0
    *before, end = run.events()
    assert (end["kind"], end["state"]) == ("end", "stopped")
    assert not [event for event in before if event["kind"] == "step"]
    assert not (run.folder / "reference.npz").exists()


def test_micro_batches_change_nothing(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Four pairs at once, or one at a time: the same loss and the same divergence."""
    from studio.worker.train import main

    method = {"name": "lora", "dropout": 0}
    runs = [
        create(order("kto", method, tiny_model, tmp_path, batch_size=size, accumulation=8 // size, packing=packing))
        for size, packing in ((8, True), (2, False))
    ]
    assert [main(run) for run in runs] == [0, 0]
    first, second = ([event["loss"] for event in run.events() if event["kind"] == "step"] for run in runs)
    assert first == pytest.approx(second, abs=2e-4)


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("dpo", {"data": {"train_on": "all"}}, "compares answers"),
        ("dpo", {"data": {"too_long": "split"}}, "whole answers"),
        ("orpo", {"training": {"label_smoothing": 0.1}}, "compares answers"),
        ("kto", {"training": {"batch_size": 1, "accumulation": 1}}, "step of one row"),
        ("dpo", {"training": {"devices": 2, "sharding": "fsdp"}}, "copy of the model on each device"),
        ("dpo", {"race": {"settings": [["method.rank=8"], ["method.rank=4"]]}}, "race"),
    ],
)
def test_settings_that_have_no_meaning_are_refused(
    stage: str, changes: Any, message: str, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from studio import preflight, race

    made = order(stage, "lora", tiny_model, tmp_path).with_changes(**changes)
    with pytest.raises(StudioError, match=message) as caught:
        (race.check if made.race else preflight.check)(made)
    assert caught.value.hint


def test_data_of_another_stage_is_refused_and_the_right_one_named(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    from studio import preflight

    pairs = order("dpo", "lora", tiny_model, tmp_path)
    for stage, named in (("sft", "dpo / orpo"), ("kto", "dpo / orpo")):
        with pytest.raises(StudioError, match="pairs of answers") as caught:
            preflight.check(pairs.with_changes(stage={"name": stage}))
        assert named in caught.value.hint
    verdicts = order("kto", "lora", tiny_model, tmp_path)
    for stage in ("sft", "dpo"):
        with pytest.raises(StudioError, match="with a verdict") as caught:
            preflight.check(verdicts.with_changes(stage={"name": stage}))
        assert "kto" in caught.value.hint
    preflight.check(verdicts)


def test_a_stage_balances_the_experts_of_a_base_that_asks_for_it(
    tiny_model: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As trl does: the term of the whole micro-batch, both answers of a pair in it, padding left out."""
    monkeypatch.setitem(architectures.CONFIGS, "mixtral", {**architectures.GROUPED, "num_local_experts": 4})
    base = architectures.write(tmp_path / "base", "mixtral")
    asked = {"output_router_logits": True, "router_aux_loss_coef": 0.5, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(base, **asked)
    rows = encoded(PAIRS[:2], "pairs", tmp_path, tiny_model)
    numbers = numpy.zeros((2, 2), numpy.float32)
    padded = collate(rows.first(2), False)
    ends = padded["input_ids"].shape[1] - torch.tensor(padded["padding"])
    mask = (torch.arange(padded["input_ids"].shape[1]) < ends[:, None]).long()
    balance = 0.5 * model(input_ids=padded["input_ids"], attention_mask=mask).aux_loss
    for stage in (DPO(), STAGES["orpo"]()):
        reference = numbers if stage.uses_reference else None
        losses = [loss_of(stage, model.train(mode), rows, reference=reference)[0] for mode in (True, False)]
        torch.testing.assert_close(losses[0] - losses[1], balance, rtol=1e-3, atol=1e-5)
