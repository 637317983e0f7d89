"""compare-methods and methods in the terminal: one order a method, one table; events stand in for the trainer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio import __main__ as terminal
from studio import queue
from studio.commands import methods
from studio.config import RunConfig
from studio.methods import METHODS
from studio.run import Run, create


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The orders that reach the queue; each run has ended by the time it is followed."""
    seen: list[RunConfig] = []

    def submit(order: RunConfig) -> Run:
        seen.append(order)
        one = create(order)
        one.append("plan", steps=4, trainable=1234, parameters=56789)
        for step, loss in ((0, 5.0), (4, 4.5)):
            one.append("eval", step=step, loss=loss)
        one.append("step", step=4, loss=4.4, seconds=7.5, memory=2**30)
        state = "failed" if order.method.name == "ia3" else "finished"
        one.append("end", state=state, cause=None, peak_memory=2**30)
        return one

    monkeypatch.setattr(queue, "submit", submit)
    monkeypatch.setattr(methods, "follow", lambda one: None)
    return seen


def test_every_method_once(
    home: Path,
    tiny_model: Path,
    tiny_data: Path,
    tmp_path: Path,
    ordered: list[RunConfig],
    capsys: pytest.CaptureFixture,
) -> None:
    """Alike but for the method, each at its own rate; saved rows are not measured again, failed ones are."""
    command = [
        "compare-methods",
        str(tiny_data),
        "--model",
        str(tiny_model),
        "--save",
        str(tmp_path / "out" / "table.json"),
        "--set",
        "training.batch_size=2",
        "--json",
    ]
    assert terminal.main(command) == 1  # one failed
    table = json.loads(capsys.readouterr().out)
    assert [order.method.name for order in ordered] == list(METHODS) == [row["method"]["name"] for row in table]
    assert {order.training for order in ordered} == {ordered[0].training}
    assert ordered[0].training.batch_size == 2
    assert all(order.data == ordered[0].data for order in ordered)
    assert [row["learning_rate"] for row in table] == [kind.learning_rate for kind in METHODS.values()]
    row = table[0]
    assert (row["eval_loss_before"], row["eval_loss"], row["trainable"], row["train_seconds"], row["peak_memory"]) == (
        5.0,
        4.5,
        1234,
        7.5,
        2**30,
    )
    assert row["share"] == pytest.approx(100 * 1234 / row["parameters"], rel=1e-3)
    assert {row["method"]["name"]: row["base"] for row in table}["qlora"] == "nf4"
    before = len(ordered)
    terminal.main(command)
    assert [order.method.name for order in ordered[before:]] == ["ia3"]
    terminal.main([*command, "--set", "training.epochs=2"])
    assert len(ordered) == before + 1 + len(METHODS)


def test_ranks(
    home: Path, tiny_model: Path, tiny_data: Path, ordered: list[RunConfig], capsys: pytest.CaptureFixture
) -> None:
    assert terminal.main(["compare-methods", str(tiny_data), "--model", str(tiny_model), "--ranks", "4,8,64"]) == 0
    assert [order.method for order in ordered] == [METHODS["lora"](rank=rank) for rank in (4, 8, 64)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["method", "trained"]
    assert [line.split()[:2] for line in lines[1:]] == [["LoRA", "4"], ["LoRA", "8"], ["LoRA", "64"]]
    assert len({len(line) for line in lines}) == 1
    assert terminal.main(["compare-methods", str(tiny_data), "--model", str(tiny_model), "--ranks", "four"]) == 2


def test_refused_before_anything_runs(home: Path, tiny_model: Path, tiny_data: Path, ordered: list[RunConfig]) -> None:
    """A setting that one of the methods cannot have is told at once, not an hour later."""
    assert (
        terminal.main(
            ["compare-methods", str(tiny_data), "--model", str(tiny_model), "--set", "training.checkpointing=true"]
        )
        == 2
    )
    assert not ordered


@pytest.mark.parametrize("name", METHODS)
def test_page_of_help(name: str, capsys: pytest.CaptureFixture) -> None:
    """Two sentences when to take it and what it costs, and every knob with its help."""
    assert terminal.main(["methods", name]) == 0
    page = capsys.readouterr().out
    assert METHODS[name].advice in page
    for knob in methods.knobs(METHODS[name]):
        assert knob["key"] in page
        assert knob["help"] in page


def test_listing(capsys: pytest.CaptureFixture) -> None:
    assert terminal.main(["methods", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(METHODS)
    assert terminal.main(["methods", "lorra"]) == 2
    assert "lora" in capsys.readouterr().err
    assert terminal.main(["presets", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["quick", "balanced", "best", "smallest"]
