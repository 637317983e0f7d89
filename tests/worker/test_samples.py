"""Samples over time: of the untouched base, at every evaluation and at the end, within their share of the time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.kernels import SAMPLE_MAX_NEW_TOKENS
from studio.talk.reference import resolve
from studio.tokens import Encoder
from studio.training import Training
from studio.worker import samples
from studio.worker.samples import LEAST_TOKENS, SHARE, budget
from tests.worker.carrying import carry, order, rows

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.json")


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_three_held_out_questions_by_default(
    method: str, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first round is of the base as transformers loads it, whatever the method puts before or beside it."""
    monkeypatch.setattr(samples, "SHARE", 1e6)  # however slow this machine is just now
    ordered = ("data.eval=0.3", "training.eval_every=5", f"training.samples={Training().samples}")
    run = order(tiny_model, data, *ordered, f"method.name={method}")
    found = [event for event in carry(run) if event["kind"] == "sample"]
    assert {event["step"] for event in found} == {0, 5, 10}
    assert len({event["prompt"] for event in found}) == 3
    base = [event for event in found if event["step"] == 0]
    assert all(event["reference"].startswith("The number is") for event in base)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    reference = resolve(f"base:{run.id}")
    encoder = Encoder(tiny_model, reference.template)
    for event in base:
        ids = torch.tensor([encoder.prompt_ids([{"role": "user", "content": event["prompt"]}])])
        out = model.generate(ids, max_new_tokens=LEAST_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
        answer = encoder.tokenizer.decode(out[0, ids.shape[1] :].tolist(), skip_special_tokens=True)
        assert event["answer"].startswith(answer[:20])


def test_none_where_none_are_wanted(tiny_model: Path, data: Path) -> None:
    run = order(tiny_model, data, "data.eval=0.3", "training.samples=0")
    assert not [event for event in carry(run) if event["kind"] == "sample"]


def test_the_share_of_time_is_kept() -> None:
    """A pretended run of an hour with slow answers: all rounds stay below the share, both ends are there."""
    total, steps, spent, answered, token = 3600.0, 30, 0.0, [], 1.0
    for n in range(steps + 1):
        waited = n - 1 - answered[-1] if answered else 0
        seconds = budget(total, spent, steps + 1 - n, token, n in (0, steps), waited)
        if seconds is not None:
            answered.append(n)
            spent += max(LEAST_TOKENS * token, seconds)
    assert {0, steps} <= set(answered)
    assert 4 < len(answered) < steps, "some are left out, and the others spread"
    assert max(later - before for before, later in zip(answered, answered[1:])) < 12
    assert spent <= SHARE * total


def test_the_ends_are_answered_in_any_case() -> None:
    assert budget(3600.0, 0.0, 11, 0.001, False) > SAMPLE_MAX_NEW_TOKENS * 0.001
    assert budget(3600.0, 200.0, 5, 0.01, False) is None
    assert budget(3600.0, 200.0, 5, 0.01, True) == 0.0


@pytest.mark.parametrize("room", [0, 1])
def test_short_memory(room: int, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that have no room at once are written one by one; without room for one, none is, and that is said."""
    step = samples.Batch.step

    def short(batch: samples.Batch) -> list:
        if len(batch.answers) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(batch)

    monkeypatch.setattr(samples.Batch, "step", short)
    events = carry(order(tiny_model, data, "data.eval=0.3", "training.eval_every=5", "training.samples=3"))
    assert events[-1]["state"] == "finished"
    assert len([event for event in events if event["kind"] == "sample" and event["step"] == 0]) == 3 * room
    said = [event for event in events if event["kind"] == "note" and "no longer answered" in event["text"]]
    assert len(said) == 1 - room


def test_slow_rounds_are_left_out_and_said(tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that take a hundred times as long as the steps: the ends are cut, what lies between is left out."""
    step = samples.Batch.step
    monkeypatch.setattr(samples.Batch, "step", lambda batch: time.sleep(0.05) or step(batch))
    run = order(tiny_model, data, "data.eval=0.3", "training.eval_every=2", "training.samples=3")
    events = carry(run)
    found = {event["step"] for event in events if event["kind"] == "sample"}
    assert {0, 10} <= found
    assert any("sample" in event["text"].lower() for event in events if event["kind"] == "note")
    assert any(event.get("cut") for event in events if event["kind"] == "sample")
