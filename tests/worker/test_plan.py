"""Plans: the verdict's arithmetic on known figures, the figures against transformers, and the runs that are left."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from studio import config, data, model, plan, queue, run
from studio.config import RunConfig
from studio.errors import OrderError
from studio.run import create
from studio.tokens import Encoder
from studio.ui import words
from studio.worker import plan as planner
from tests.worker.carrying import killed_at_step

ROWS = (24, 50, 100, 200)


def losses(mean: float, spread: float = 0.1, count: int = 48, seed: int = 0) -> plan.Losses:
    """Rows of 10 tokens whose mean loss is about `mean`; the same rows are hard in all."""
    noise = np.random.default_rng(seed).normal(0, spread, count)
    return plan.Losses((mean + noise - noise.mean()) * 10, np.full(count, 10.0))


def figures(base: float, few: float | None, curve: list[float], swapped_prompt: float, swapped_tuned: float) -> Any:
    return plan.Figures(
        losses(base),
        None if few is None else losses(few),
        [plan.Point(rows, losses(mean)) for rows, mean in zip(ROWS, curve, strict=True)],
        losses(swapped_prompt, seed=1),
        losses(swapped_tuned, seed=1),
    )


@pytest.mark.parametrize(
    ("verdict", "base", "few", "curve", "swapped_prompt", "swapped_tuned"),
    [
        ("prompting", 2.0, 0.3, [0.5, 0.4, 0.3, 0.28], 2.0, 2.0),
        ("prompting", 0.05, None, [0.05, 0.04, 0.03, 0.02], 2.0, 2.0),
        ("enough", 3.0, 2.0, [0.52, 0.505, 0.502, 0.5], 2.5, 2.5),
        ("more_rows", 3.0, 2.5, [2.2, 1.8, 1.4, 1.0], 2.6, 3.0),
        ("nothing", 5.0, 4.0, [3.5, 3.2, 3.1, 3.0], 4.0, 3.0),
    ],
)
def test_verdict_of_known_figures(
    verdict: str, base: float, few: float | None, curve: list[float], swapped_prompt: float, swapped_tuned: float
) -> None:
    found = plan.conclude(figures(base, few, curve, swapped_prompt, swapped_tuned))
    assert found["verdict"] == verdict
    assert (found["rows_needed"] is not None) == (verdict == "more_rows")
    assert [point["rows"] for point in found["curve"]] == list(ROWS)
    assert all(point["low"] <= point["loss"] <= point["high"] for point in found["curve"])
    assert words.translate(found["sentence"], "zh") != found["sentence"]
    assert not any(part in words.translate(found["sentence"], "zh") for part in ("loss", "training"))


def test_a_power_law_is_found_again() -> None:
    rows = np.array(ROWS, float)
    floor, scale, exponent = plan.power_law(rows, 0.4 + 6 * rows**-0.5)
    assert (floor, scale, exponent) == pytest.approx((0.4, 6, 0.5), abs=0.05)
    needed, bound = plan.rows_needed([plan.Point(int(n), losses(0.4 + 2 * n**-0.5)) for n in rows])
    law = 2 * (needed**-0.5 - (2 * needed) ** -0.5)
    assert law == pytest.approx(plan.DOUBLING * (0.4 + 2 * rows[-1] ** -0.5), rel=0.2)
    assert not bound
    straight = [plan.Point(int(n), losses(5 - n / 50)) for n in rows]
    assert plan.rows_needed(straight) == (plan.MOST_ROWS * ROWS[-1], True)


def test_a_share_of_the_rows_that_is_none_is_refused(tmp_path: Path) -> None:
    """A look at one row ended with numpy's words on the maximum of nothing."""
    order = config.build({"data": {"train": str(tmp_path / "one.jsonl")}})
    with pytest.raises(OrderError, match="12% of 1 rows is no row") as refused:
        plan.order(order, 10, rows={"rows": 1, "tokens": 40, "trained": 20, "max": 40, "eval_rows": 0})
    assert refused.value.hint == "Give 9 rows or more."


def test_the_minutes_are_kept(home: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps by the forecast; too few minutes are refused with how many are needed."""
    order = config.build({"model": str(tiny_model), "data": {"train": str(tiny_data)}})
    facts, rows = model.facts(tiny_model), {"rows": 400, "tokens": 40000, "trained": 20000, "max": 200, "eval_rows": 20}
    made = plan.order(order, 10, facts, rows)
    assert made.training.max_steps == 300  # three epochs: there is time
    forecast = plan.record.forecast

    def slow(*given: Any, **more: Any) -> Any:
        return forecast(*given, **more).model_copy(update={"seconds_per_step": 2.0, "tokens_per_second": 200.0})

    monkeypatch.setattr(plan.record, "forecast", slow)
    made = plan.order(order, 30, facts, rows)
    assert 4 * 2.0 * made.training.max_steps < 30 * 60
    with pytest.raises(OrderError, match="In 2 minutes") as refused:
        plan.order(order, 2, facts, rows)
    needed = float(refused.value.hint.split()[1])
    assert plan.order(order, needed, facts, rows).training.max_steps >= plan.LEAST_STEPS
    with pytest.raises(OrderError, match="In 1 minute each"):
        plan.order(order, 1, facts, rows)


@pytest.fixture
def short_order(home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Eight steps on sixty rows; what is queued waits."""
    monkeypatch.setattr(queue, "advance", lambda: None)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(pair(f"What is {n}?", f"It is {n * n}.")) + "\n" for n in range(60)))
    return config.build(
        {"model": str(tiny_model), "data": {"train": str(file)}, "training": {"max_steps": 8, "threads": 1}}
    )


def test_a_look_from_order_to_runs(short_order: RunConfig, tiny_model: Path) -> None:
    """Four runs on nested shares, measured on the same rows; the base's losses are transformers' own."""
    one = create(plan.order(short_order, 10, None, None, shots=2))
    assert planner.main(one) == 0, one.events()[-1]
    found = plan.answer(one)
    assert found["verdict"] in plan.VERDICTS
    rows = [point["rows"] for point in found["curve"]]
    assert rows == sorted(rows)
    assert rows[-1] == 32 == 8 * 4
    assert [kept.state() for kept in map(run.find, found["runs"])] == ["finished"] * 4
    weights = [run.find(name).config.data.train[0].weight for name in found["runs"]]
    assert weights == list(plan.SHARES)
    assert not (one.folder / "contestants").exists()

    section = run.find(found["runs"][-1]).config.data
    held_out = data.held_out(section, Encoder.from_order(section, tiny_model))
    assert len(held_out) == 12
    encoder = Encoder.from_order(section, tiny_model)
    shots = [row for row in data.trained_on(section, count=200) if row["messages"] not in held_out]
    bare = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    assert found["base_loss"] == pytest.approx(reference(bare, encoder, held_out), abs=1e-3)
    assert found["few_shot_loss"] != found["base_loss"]
    long = planner.with_examples(held_out[0], shots[:2])
    assert [message["content"] for message in long["messages"][-2:]] == [
        message["content"] for message in held_out[0]["messages"]
    ]
    assert len(long["messages"]) == 6


def test_a_killed_look_begins_anew_and_finds_the_same(short_order: RunConfig) -> None:
    whole, cut = (create(plan.order(short_order, 10, None, None, shots=2)) for _ in range(2))
    assert killed_at_step(cut, 20, planner.main) == -signal.SIGKILL
    assert plan.answer(cut) is None
    found, expected = (plan.answer(one) for one in (cut, whole) if planner.main(one) == 0)
    assert found["verdict"] == expected["verdict"]
    for point, other in zip(found["curve"], expected["curve"], strict=True):
        assert point == pytest.approx(other, rel=1e-4)
    assert [run.find(name).state() for name in found["runs"]] == ["finished"] * 4
    assert not (cut.folder / "contestants").exists()


def reference(bare: Any, encoder: Encoder, rows: list[dict[str, Any]]) -> float:
    """The mean loss of the answers as transformers computes it, row by row."""
    total = count = 0.0
    for row in map(encoder.encode, rows):
        labels = torch.tensor([row.labels])
        tokens = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(bare(input_ids=torch.tensor([row.ids]), labels=labels).loss) * tokens
        count += tokens
    return total / count


def pair(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_answers_are_swapped_with_others_of_like_length() -> None:
    rows = [pair(f"q{n}", "x" * (n + 1)) for n in range(6)]
    swapped = planner.swapped_answers(rows)
    assert [row["messages"][0] for row in swapped] == [row["messages"][0] for row in rows]
    assert sorted(row["messages"][1]["content"] for row in swapped) == [row["messages"][1]["content"] for row in rows]
    assert all(a["messages"][1] != b["messages"][1] for a, b in zip(swapped, rows, strict=True))
    assert planner.swapped_answers([pair(f"q{n}", "same") for n in range(6)]) is None
    assert planner.swapped_answers([{"text": "plain"}] * 3) is None
