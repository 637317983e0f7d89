"""The record: runs that finished, what they took, and what estimates make of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from studio import config, model, run
from studio.device import Device
from studio.forecast import record
from studio.model import ModelFacts

HERE = Device(kind="cpu", name="a CPU", memory=32 * 2**30, free=30 * 2**30, bf16=True, cores=4)
GIB = 2**30


@pytest.fixture
def facts(tiny_model: Path) -> ModelFacts:
    return model.facts(tiny_model)


def order(tiny_model: Path, method: str = "lora") -> config.RunConfig:
    return config.build({"model": str(tiny_model), "data": {"train": "x.json", "max_length": 256}, "method": method})


def finished(
    wanted: config.RunConfig,
    estimated: float,
    measured: float,
    *,
    device: str = "a CPU",
    state: str = "finished",
    correction: float = 1.0,
    speed: float = 1000.0,
) -> run.Run:
    """A run's folder as a trainer leaves it."""
    made = run.create(wanted)
    said: dict[str, Any] = {"device": device, "correction": correction, "context": 0, "seconds": 100.0}
    made.append("phase", name="starting", attempt=1)
    made.append(
        "plan",
        attempt=1,
        steps=10,
        device="cpu",
        estimated_memory=int(estimated * GIB),
        expected=said,
        statistics={"rows": 100, "tokens": 20_000, "trained": 12_000},
    )
    for step in range(1, 11):
        made.append(
            "step",
            attempt=1,
            step=step,
            loss=1.0,
            tokens=step * 100,
            tokens_per_second=speed if step > 2 else 1.0,
            memory=int(measured * GIB),
        )
    made.append("end", attempt=1, state=state, peak_memory=int(measured * GIB))
    return made


def test_three_runs_correct_what_follows(facts: ModelFacts, tiny_model: Path, home: Path) -> None:
    wanted = order(tiny_model)
    plain = record.forecast(facts, wanted, HERE)
    for count in range(3):
        assert record.correction(record.finished_runs(HERE), wanted) == 1.0, f"{count} runs are no record yet"
        finished(wanted, 2.0, 2.2)
    corrected = record.forecast(facts, wanted, HERE)
    assert corrected.correction == pytest.approx(1.1)
    assert corrected.total == pytest.approx(1.1 * plain.total, rel=1e-3)
    assert record.accuracy(record.finished_runs(HERE))["text"] == "Last 3 runs: off by 9% in the median."


def test_a_correction_is_not_corrected_again(tiny_model: Path, home: Path) -> None:
    """A run that was estimated with a correction tells of the estimate before it."""
    wanted = order(tiny_model)
    for _ in range(3):
        finished(wanted, 2.2, 2.2, correction=1.1)
    here = record.finished_runs(HERE)
    assert record.correction(here, wanted) == pytest.approx(1.1)
    assert record.accuracy(here)["median_error"] == 0


def test_nonsense_and_the_unfinished_teach_nothing(tiny_model: Path, home: Path) -> None:
    wanted = order(tiny_model)
    for _ in range(3):
        finished(wanted, 2.0, 2.1)
    for state in ("failed", "stopped", "lost"):
        finished(wanted, 2.0, 0.4, state=state)
    for measured in (0.01, 64.0):  # a counter that was never set, or of another process
        finished(wanted, 2.0, measured)
    finished(wanted, 2.0, 2.4, device="another CPU")
    run.create(wanted)
    here = record.finished_runs(HERE)
    assert record.correction(here, wanted) == pytest.approx(1.05)
    assert record.accuracy(here)["runs"] == 3
    torn = finished(wanted, 2.0, 2.1)
    torn.events_file.write_bytes(torn.events_file.read_bytes()[:-40])
    assert record.correction(record.finished_runs(HERE), wanted) == pytest.approx(1.05)


def test_corrections_are_bounded(tiny_model: Path, home: Path) -> None:
    for _ in range(4):
        finished(order(tiny_model), 2.0, 3.9)
    assert record.correction(record.finished_runs(HERE), order(tiny_model)) == record.BOUNDS[1]


def test_runs_of_the_same_method_are_believed_first(tiny_model: Path, home: Path) -> None:
    for _ in range(3):
        finished(order(tiny_model, "full"), 2.0, 1.8)
        finished(order(tiny_model), 2.0, 2.2)
    here = record.finished_runs(HERE)
    assert record.correction(here, order(tiny_model)) == pytest.approx(1.1)
    assert record.correction(here, order(tiny_model, "full")) == pytest.approx(0.9)
    assert record.correction(here, order(tiny_model, "prefix")) == 1.0, "another method's memory tells nothing"


def test_another_models_runs_never_lower_an_estimate(tiny_model: Path, home: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    for _ in range(3):
        finished(order(tiny_model), 2.0, 1.8)
    assert record.correction(record.finished_runs(HERE), order(tiny_model)) == pytest.approx(0.9)
    assert record.correction(record.finished_runs(HERE), order(other)) == 1.0
    for _ in range(5):
        finished(order(tiny_model), 2.0, 2.2)
    assert record.correction(record.finished_runs(HERE), order(other)) == pytest.approx(1.1)


def test_speed_is_that_of_warm_steps(facts: ModelFacts, tiny_model: Path, home: Path) -> None:
    from studio.forecast.duration import work

    wanted = order(tiny_model)
    finished(wanted, 2.0, 2.0, speed=500.0)
    assert record.rates(record.finished_runs(HERE), wanted) == [
        pytest.approx(500 * work(facts, wanted, 200, 0.6, False))
    ]
    assert (
        record.forecast(facts, wanted, HERE, {"rows": 100, "tokens": 20_000, "trained": 12_000, "max": 256}).speed_from
        == "runs"
    )
