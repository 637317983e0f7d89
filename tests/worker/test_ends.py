"""How a trainer ends when something goes wrong near its end, and what the next attempt makes of it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from studio.data import preparing
from studio.run import Run
from studio.runs import checkpoints, results
from studio.worker import report, trainer
from studio.worker.trainer import StudioTrainer
from tests.worker.carrying import carry, evals, order, result, rows, steps

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.json")


def again(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Another attempt; what it wrote."""
    before = len(run.events())
    monkeypatch.setenv("STUDIO_ATTEMPT", "2")
    return carry(Run(run.folder))[before:]


def test_an_early_stop_that_died_at_its_result_trains_no_further(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = order(
        tiny_model,
        data,
        "training.early_stopping=2",
        "training.eval_every=1",
        "training.learning_rate=0.5",
        "training.epochs=20",
        "training.max_grad_norm=0",
        "training.schedule=constant",
    )
    whole, weights = carry(run), result(run)
    shutil.rmtree(run.result)
    told = again(run, monkeypatch)
    assert not steps(told)
    assert told[-1]["state"] == "finished"
    assert told[-1]["step"] == whole[-1]["step"]
    assert all(torch.equal(weight, result(run)[name]) for name, weight in weights.items())
    run.change("extended by 1", training={"epochs": 21})
    assert steps(again(run, monkeypatch)), "a goal that was moved is trained towards"


def test_no_checkpoint_holds_a_nan(tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is told every tenth step only; the weights are spoilt at the fourth, and a checkpoint is due at the
    sixth.
    """
    said = StudioTrainer.training_step

    def spoilt(self: StudioTrainer, model: torch.nn.Module, *given: object) -> torch.Tensor:
        if self.state.global_step == 4:
            next(weight for weight in model.parameters() if weight.requires_grad).data.fill_(float("nan"))
        return said(self, model, *given)

    monkeypatch.setattr(StudioTrainer, "training_step", spoilt)
    run = order(tiny_model, data, "training.log_every=100", "training.save_every=3")
    told = carry(run)
    assert told[-1]["state"] == "failed"
    assert told[-1]["reason"] == "nan"
    assert checkpoints.steps(run.checkpoints) == [3]
    assert not run.result.exists()


def test_a_stop_cuts_a_long_evaluation_short(tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "STOP_WAIT", 0)
    run = order(tiny_model, data, "training.eval_every=3", "training.packing=false")
    said = StudioTrainer.micro_batch_loss

    def asked(self: StudioTrainer, model: torch.nn.Module, piece: dict) -> torch.Tensor:
        if not model.training and self.state.global_step == 3:
            run.request_stop()
        return said(self, model, piece)

    monkeypatch.setattr(StudioTrainer, "micro_batch_loss", asked)
    told = carry(run)
    assert told[-1]["state"] == "stopped"
    assert [event["step"] for event in told if event["kind"] == "eval"] == [0]
    assert any("cut short" in event.get("text", "") for event in told)
    assert len(steps(told)) == 4
    assert (run.result / "manifest.json").is_file()


def test_the_plain_way_is_taken_again_after_a_resume(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that computes otherwise with a cut head is trained the plain way in every attempt, and the resumed one
    ends where the whole one does.
    """
    said = trainer.loss
    monkeypatch.setattr(
        trainer,
        "loss",
        lambda model, inputs, kind, *more: said(model, inputs, kind, *more) * (1.1 if kind == "chunked" else 1),
    )
    run = order(tiny_model, data, "training.save_every=4")
    whole, weights = carry(run), result(run)
    for step in (8, 10):
        shutil.rmtree(run.checkpoints / f"checkpoint-{step}")
    told = again(run, monkeypatch)
    assert [
        any("trained the plain way" in event.get("text", "") for event in attempt) for attempt in (whole, told)
    ] == [True, True]
    assert steps(told) == steps(whole)[4:]
    assert all(torch.equal(weight, result(run)[name]) for name, weight in weights.items())


def test_a_disk_that_is_full_at_the_result_is_named(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = order(tiny_model, data, "training.max_steps=3")

    @contextmanager
    def full(target: Path) -> Iterator[Path]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield target

    with monkeypatch.context() as patched:
        patched.setattr(results, "replacing", full)
        told = carry(run)
    assert (told[-1]["state"], told[-1]["reason"]) == ("failed", "disk")
    told = again(run, monkeypatch)
    assert not steps(told)
    assert told[-1]["state"] == "finished"
    assert evals(told) == []


def test_a_newer_program_goes_on_with_the_same_rows(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of read data is read anew after an update; the rows decide whether a resume is the same run, not the
    number of the version.
    """
    run = order(tiny_model, data, "training.save_every=4")
    whole, weights = carry(run), result(run)
    for step in (8, 10):
        shutil.rmtree(run.checkpoints / f"checkpoint-{step}")
    monkeypatch.setattr(preparing, "VERSION", "another")
    told = again(run, monkeypatch)
    assert steps(told) == steps(whole)[4:]
    assert all(torch.equal(weight, result(run)[name]) for name, weight in weights.items())


def test_other_rows_are_refused(tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = order(tiny_model, data, "training.max_steps=3")
    carry(run)
    rows(data, count=25)
    told = again(run, monkeypatch)
    assert (told[-1]["state"], told[-1]["reason"]) == ("failed", "run")
    assert "data file has changed" in told[-1]["cause"]
