"""One run, from order to result, in this process on the tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from studio import device
from studio.forecast import record
from studio.run import Run
from studio.worker import trainer
from studio.worker.report import Report
from studio.worker.trainer import StudioTrainer
from tests.worker.carrying import carry, evals, order, result, rows, steps

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.json")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_lowers_the_loss_and_leaves_its_result(method: str, tiny_model: Path, data: Path) -> None:
    run = order(tiny_model, data, f"method.name={method}")
    events = carry(run)
    plan = next(event for event in events if event["kind"] == "plan")
    assert events[-1]["kind"] == "end"
    assert events[-1]["state"] == "finished"
    assert len(steps(events)) == plan["steps"] == 10
    assert evals(events)[-1] < evals(events)[0] * 0.9
    assert next(event for event in events if event["kind"] == "eval")["step"] == 0
    assert plan["packing"] is True
    assert 0 <= plan["padding"] < 1
    step = next(event for event in events if event["kind"] == "step")
    assert {
        "step",
        "epoch",
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens",
        "tokens_per_second",
        "memory",
        "seconds",
    } <= step.keys()
    assert step["memory"] > 1e6
    peaks = [marks["resident"] for marks in events[-1]["memory_by_phase"].values()]
    assert {"loading model", "training", "evaluating"} <= events[-1]["memory_by_phase"].keys()
    assert max(peaks) <= events[-1]["peak_memory"]
    assert plan["expected"]["total"] == plan["estimated_memory"] > max(plan["expected"]["by_phase"].values()) * 0.9
    assert plan["statistics"]["rows"] == plan["rows"]
    runs = record.finished_runs(device.cpu())
    assert [one.run for one in runs] == [run.id], "a finished run is on the record"
    assert runs[0].measured == events[-1]["peak_memory"]
    manifest = json.loads((run.result / "manifest.json").read_text())
    assert manifest["step"] == 10
    assert manifest["stop"]
    assert {"tokenizer.json", "chat_template.jinja"} <= {file.name for file in run.result.iterdir()}
    assert result(run)


def test_the_probe_leaves_no_trace(tiny_model: Path, data: Path) -> None:
    one, other = order(tiny_model, data, "training.probe=true"), order(tiny_model, data)
    told = carry(one)
    carry(other)
    assert "probing" in [event.get("name") for event in told]
    for name, weight in result(one).items():
        assert torch.equal(weight, result(other)[name])


def test_too_large_a_batch_ends_at_the_probe(tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = StudioTrainer.micro_batch_loss

    def full(self: StudioTrainer, model: torch.nn.Module, micro_batch: object) -> torch.Tensor:
        if not model.training:
            return original(self, model, micro_batch)
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 "
            "bytes"
        )

    monkeypatch.setattr(StudioTrainer, "micro_batch_loss", full)
    events = carry(order(tiny_model, data, "training.probe=true"))
    assert events[-1]["state"] == "failed"
    assert "ran out of memory on the largest batch" in events[-1]["cause"]
    assert not steps(events)


def test_a_model_that_computes_otherwise_is_trained_the_plain_way(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer.loss
    monkeypatch.setattr(
        trainer,
        "loss",
        lambda model, inputs, kind, *more: original(model, inputs, kind, *more) * (1.1 if kind == "chunked" else 1),
    )
    events = carry(order(tiny_model, data, "training.max_steps=2"))
    assert events[-1]["state"] == "finished"
    assert any("trained the plain way" in event.get("text", "") for event in events)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_resumed_run_ends_bit_for_bit_where_the_whole_one_does(
    method: str, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = order(tiny_model, data, f"method.name={method}", "training.save_every=3")
    whole, losses = carry(run), result(run)
    for checkpoint in ("checkpoint-9", "checkpoint-10", "checkpoint-6"):
        shutil.rmtree(run.checkpoints / checkpoint)
    shutil.rmtree(run.result)
    monkeypatch.setenv("STUDIO_ATTEMPT", "2")
    again = carry(run)[len(whole) :]
    assert [event["step"] for event in again if event["kind"] == "step"] == list(range(4, 11))
    assert next(event for event in again if event.get("name") == "training")["from_step"] == 3
    assert steps(again) == steps(whole)[3:]
    for name, weight in result(run).items():
        assert torch.equal(weight, losses[name]), name


@pytest.mark.parametrize("how", ["keep", "discard"])
def test_stop_after_the_step(how: str, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = order(tiny_model, data)
    original = Report.on_log

    def stopping(self: Report, args: object, state: object, control: object, **given: object) -> None:
        original(self, args, state, control, **given)
        if state.global_step == 4:
            run.request_stop(how)

    monkeypatch.setattr(Report, "on_log", stopping)
    events = carry(run)
    assert events[-1]["state"] == "stopped"
    assert len(steps(events)) == 5
    assert (run.result / "manifest.json").exists() == (how == "keep")
    if how == "keep":
        assert (run.checkpoints / "checkpoint-5").is_dir()


def test_asked_for_meanwhile(tiny_model: Path, data: Path) -> None:
    run = order(
        tiny_model,
        data,
        "training.save_every=100",
        "training.eval_every=100",
        'training.sample_prompts=["Say the number 3."]',
    )
    for what in ("save", "evaluate", "sample"):
        (run.folder / f"ask-{what}").touch()
    events = carry(run)
    assert [event["step"] for event in events if event["kind"] == "saved" and event["what"] == "checkpoint"] == [1, 10]
    assert [event["step"] for event in events if event["kind"] == "eval"] == [0, 1, 10]
    samples = [event for event in events if event["kind"] == "sample"]
    assert {event["step"] for event in samples} == {0, 1, 10}
    assert samples[0]["prompt"] == "Say the number 3."


def test_samples_draw_no_random_number(tiny_model: Path, data: Path) -> None:
    one, other = order(tiny_model, data, 'training.sample_prompts=["Hello"]'), order(tiny_model, data)
    carry(one)
    carry(other)
    assert all(torch.equal(weight, result(other)[name]) for name, weight in result(one).items())


def test_the_best_is_kept_and_becomes_the_result(tiny_model: Path, data: Path) -> None:
    run = order(
        tiny_model,
        data,
        "training.keep_best=true",
        "training.keep_checkpoints=1",
        "training.learning_rate=1.0",
        "training.eval_every=1",
        "training.save_every=100",
        "training.max_grad_norm=0",
        "training.schedule=constant",
    )
    events = carry(run)
    told = [(event["loss"], event["step"]) for event in events if event["kind"] == "eval" and event["step"]]
    best = min(told)[1]
    assert json.loads((run.result / "manifest.json").read_text())["step"] == best
    assert {f"checkpoint-{best}", "checkpoint-10"} <= {path.name for path in run.checkpoints.iterdir()}


def test_early_stopping(tiny_model: Path, data: Path) -> None:
    events = carry(
        order(
            tiny_model,
            data,
            "training.early_stopping=2",
            "training.eval_every=1",
            "training.learning_rate=0.5",
            "training.epochs=20",
            "training.max_grad_norm=0",
            "training.schedule=constant",
        )
    )
    assert events[-1]["state"] == "finished"
    assert len(steps(events)) < 100
    assert any("stopped early" in event.get("text", "") for event in events)


def test_not_a_number_ends_the_run_with_its_cause(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = StudioTrainer.micro_batch_loss

    def spoilt(self: StudioTrainer, model: torch.nn.Module, micro_batch: dict) -> torch.Tensor:
        return original(self, model, micro_batch) * (
            float("nan") if model.training and self.state.global_step == 4 else 1
        )

    monkeypatch.setattr(StudioTrainer, "micro_batch_loss", spoilt)
    events = carry(order(tiny_model, data))
    assert steps(events)[-1] is None
    assert events[-1]["state"] == "failed"
    assert "not a number at step 5" in events[-1]["cause"]
    assert "learning_rate" in events[-1]["action"]


def test_extending_goes_on_from_the_end(tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = order(tiny_model, data)
    first = carry(run)
    run.change("extended by 1", training={"epochs": 3})
    monkeypatch.setenv("STUDIO_ATTEMPT", "2")
    again = carry(Run(run.folder))[len(first) :]
    assert [event["step"] for event in again if event["kind"] == "step"] == list(range(11, 16))
    assert again[-1]["state"] == "finished"


@pytest.mark.parametrize(
    "setting",
    [
        "training.neftune=5",
        "training.label_smoothing=0.1",
        "training.optimizer=adafactor",
        "training.schedule=linear",
        "training.precision=bf16",
        "method.name=prefix",
        "training.max_steps=3",
    ],
)
def test_settings_that_reach_the_trainer(
    setting: str, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.device._cpu_has_bf16", lambda: True)
    events = carry(order(tiny_model, data, setting))
    assert events[-1]["state"] == "finished"
    assert all(loss is not None for loss in steps(events))
    if "max_steps" in setting:
        assert len(steps(events)) == 3
