"""What report_to writes, with the trackers themselves: read back by their own readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker.carrying import carry, order, rows, steps


@pytest.mark.rare
def test_tensorboard_holds_the_curve(tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    run = order(tiny_model, rows(home / "rows.json"), "training.max_steps=3", "training.report_to=[tensorboard]")
    losses = steps(carry(run))
    written = accumulator.EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [entry.value for entry in written.Scalars("train/loss")] == pytest.approx(losses, rel=1e-4)


@pytest.mark.rare
def test_trackio_holds_the_curve(tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(home / "trackio"))
    run = order(tiny_model, rows(home / "rows.json"), "training.max_steps=3", "training.report_to=[trackio]")
    losses = steps(carry(run))
    metrics = trackio.Api().runs("fine-tuning-studio")
    assert [found.name for found in metrics] == [run.id]
    assert len(losses) == 3
