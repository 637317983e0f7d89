"""What only measures never ends a run that has memory to train: it takes fewer rows at a time, or does without."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio import general, memory_peak, template
from studio.run import Run
from studio.tokens import Encoder
from studio.worker import keep_general, loss_check
from studio.worker.trainer import StudioTrainer
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


@pytest.mark.parametrize("stage", ["dpo", "grpo"])
def test_held_out_figures_of_other_stages_are_the_same_with_fewer_rows_at_a_time(
    stage: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training has room for what an evaluation has not: only there passes of several rows are refused."""
    written = "stage.max_new_tokens=4", "stage.group=2", 'stage.rewards=[{"name": "length", "at_least": 8}]'
    lines = [{"prompt": f"Say {n}", "chosen": f"It is {n}.", "rejected": "No."} for n in range(16)]
    if stage == "grpo":
        lines = [{"prompt": line["prompt"], "completion": line["chosen"]} for line in lines]
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(lines))
    settings = (*ALL[:2], "training.eval_every=3", f"stage.name={stage}", *(written if stage == "grpo" else ()))
    plenty = told(order(tiny_model, data, *settings))
    evaluate, evaluating = StudioTrainer.evaluation_loop, [False]

    def evaluation_loop(*given: Any, **named: Any) -> Any:
        evaluating[0] = True
        try:
            return evaluate(*given, **named)
        finally:
            evaluating[0] = False

    monkeypatch.setattr(StudioTrainer, "evaluation_loop", evaluation_loop)
    refused = shorten(monkeypatch, 64, at_once=1, where=lambda: evaluating[0])
    short = told(order(tiny_model, data, *settings))
    assert refused
    assert short["evals"] == pytest.approx(plenty["evals"], rel=1e-3, abs=2e-4)
    assert short["steps"] == pytest.approx(plenty["steps"])


def test_replayed_answers_are_written_one_by_one_where_several_have_no_room(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    encoder, items = Encoder(tiny_model, template.load("model", tiny_model)), general.braked()[:12]

    def answers() -> list[Any]:
        return keep_general.own_answers(model, encoder, items, torch.device("cpu"))

    plenty, refused = answers(), shorten(monkeypatch, 256, at_once=1)
    short = answers()
    assert refused
    same = [one == other for one, other in zip(plenty, short, strict=True)]
    assert sum(same) > len(same) / 2, "but for ties, which rounding decides beside a longer row"


@pytest.mark.parametrize("checkpointing", [True, False])
def test_large_blocks_of_a_cpu_are_mapped_where_layers_are_checkpointed(
    checkpointing: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the heap score matrices of 1024 tokens found no place of their size: 1.39 GiB for the starter in 16 bits, and
    1.03 so.
    """
    mapped: list[bool] = []
    monkeypatch.setattr(memory_peak, "blocks_mapped", lambda: contextlib.nullcontext(mapped.append(True)))
    settings = ("training.max_steps=1", f"training.checkpointing={checkpointing}", "data.eval=0")
    assert carry(order(tiny_model, rows(tmp_path / "rows.json"), *settings))[-1]["state"] == "finished"
    assert len(mapped) == checkpointing


def test_a_hold_out_without_rows_is_told_with_what_it_leaves_idle(tiny_model: Path, tmp_path: Path) -> None:
    """A fifth of one row is none."""
    data = rows(tmp_path / "one.json", 1)
    run = order(tiny_model, data, "data.eval=0.2", "training.max_steps=2", "training.keep_best=true")
    notes = told(run)["notes"]
    assert "Of 1 rows none is held out: it is not measured how this does on rows that it has not learnt from." in notes
    assert "Nothing is held out to measure on, so training.keep_best does nothing." in notes
