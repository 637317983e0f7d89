"""What only measures never ends a run that has memory to train: it takes fewer rows at a time, or does without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio import general
from studio.run import Run
from studio.worker import loss_check
from tests.worker.carrying import carry, evals, order, rows, shorten

pytestmark = pytest.mark.usefixtures("home")
ALL = ("data.eval=0.5", "training.batch_size=4", "training.forgetting=true", "training.eval_every=3")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.json")


@pytest.fixture(autouse=True)
def few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    few = general.measured()[:24]
    monkeypatch.setattr(general, "measured", lambda: few)


def told(run: Run) -> dict[str, list[Any]]:
    """Of a finished run: its losses, its held-out losses, what it forgot and its notes."""
    events = carry(run)
    assert events[-1]["state"] == "finished", events[-1]
    forgetting = [event for event in events if event["kind"] == "forgetting"]
    return {
        "steps": [event["loss"] for event in events if event["kind"] == "step"],
        "evals": evals(events),
        "forgetting": [number for event in forgetting for number in (event["loss_rise"], event["kl"])],
        "notes": [event["text"] for event in events if event["kind"] == "note"],
    }


@pytest.mark.parametrize("method", ["lora", "full"])
def test_figures_are_the_same_with_fewer_rows_at_a_time(
    method: str, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*ALL, f"method.name={method}", "training.keep_general=1")
    plenty = told(order(tiny_model, data, *settings))
    refused = shorten(monkeypatch, 256, at_once=1)
    short = told(order(tiny_model, data, *settings))
    assert refused
    assert plenty["forgetting"]
    for kind in ("steps", "evals", "forgetting"):
        assert short[kind] == pytest.approx(plenty[kind], rel=1e-3, abs=2e-4), kind


def test_what_has_no_room_alone_is_left_out_and_said(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty = told(order(tiny_model, data, *ALL))
    monkeypatch.setattr(loss_check, "check_loss", lambda _, resolved: resolved)
    shorten(monkeypatch, 8)
    short = told(order(tiny_model, data, *ALL))
    assert short["steps"] == pytest.approx(plenty["steps"]), "training goes on as it would have"
    assert not short["evals"]
    assert not short["forgetting"]
    for words in ("Held-out rows", "Forgetting is not measured"):
        assert any(words in note for note in short["notes"]), words
