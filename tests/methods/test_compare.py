"""compare-methods and methods in the terminal: one setting a method, one table; events stand in for the worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio import __main__ as terminal
from studio import race, race_settings
from studio.commands import methods
from studio.config import RunConfig
from studio.methods import METHODS
from studio.run import Run, create


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> list[list[RunConfig]]:
    """The settings of every race that is started; each has ended by the time it is followed, IA³'s with a failure."""
    seen: list[list[RunConfig]] = []

    def start(order: RunConfig, rows: Any) -> Run:
        race.check(order, rows)
        seen.append(race.orders(order))
        table = []
        for number, (made, label) in enumerate(zip(seen[-1], race_settings.labels(order.race), strict=True), 1):
            failed = made.method.name == "ia3"
            table.append(
                race.new_row(number, made, label)
                | {"state": "failed" if failed else "finished", "place": None if failed else number}
                | {"trainable": 1234, "share": 2.5, "eval_loss_before": 5.0, "eval_loss": 4.5, "train_seconds": 7.5}
            )
        one = create(order)
        one.append("eval", step=4, loss=4.5, table=table)
        one.append("end", state="finished", cause=None, peak_memory=2**30)
        return one

    monkeypatch.setattr(race, "start", start)
    return seen


def test_every_method_once(
    home: Path,
    tiny_model: Path,
    tiny_data: Path,
    tmp_path: Path,
    ordered: list[list[RunConfig]],
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
    (orders,) = ordered
    assert [order.method.name for order in orders] == list(METHODS) == [row["method"]["name"] for row in table]
    assert {order.training for order in orders} == {orders[0].training}
    assert orders[0].training.batch_size == 2
    assert all(order.data == orders[0].data for order in orders)
    assert [row["learning_rate"] for row in table] == [kind.learning_rate for kind in METHODS.values()]
    row = table[0]
    assert (row["eval_loss_before"], row["eval_loss"], row["trainable"], row["train_seconds"]) == (5.0, 4.5, 1234, 7.5)
    assert {row["method"]["name"]: row["base"] for row in table}["qlora"] == "nf4"
    terminal.main(command)
    assert [order.method.name for order in ordered[1]] == ["ia3"]
    terminal.main([*command, "--set", "training.epochs=2"])
    assert len(ordered[2]) == len(METHODS)


def test_ranks(
    home: Path, tiny_model: Path, tiny_data: Path, ordered: list[list[RunConfig]], capsys: pytest.CaptureFixture
) -> None:
    assert terminal.main(["compare-methods", str(tiny_data), "--model", str(tiny_model), "--ranks", "4,8,64"]) == 0
    assert [order.method for order in ordered[0]] == [METHODS["lora"](rank=rank) for rank in (4, 8, 64)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["method", "trained"]
    assert [line.split()[:2] for line in lines[1:]] == [["LoRA", "4"], ["LoRA", "8"], ["LoRA", "64"]]
    assert len({len(line) for line in lines}) == 1
    assert terminal.main(["compare-methods", str(tiny_data), "--model", str(tiny_model), "--ranks", "four"]) == 2


def test_race(
    home: Path, tiny_model: Path, tiny_data: Path, ordered: list[list[RunConfig]], capsys: pytest.CaptureFixture
) -> None:
    """The table as a list of rows, the winner's order first; without settings six around the order's own."""
    command = ["race", str(tiny_data), "--model", str(tiny_model), "--json"]
    assert terminal.main([*command, "--set", "method.rank=4,8", "--set", "training.epochs=1"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in rows] == ["rank 4", "rank 8"]
    assert rows[0]["order"]["method"]["rank"] == 4
    assert rows[0]["order"]["training"] == {"epochs": 1}
    assert terminal.main(command) == 0
    assert len(ordered[1]) == 6
    assert terminal.main([*command, "--set", "data.max_length=64,128"]) == 2
    assert terminal.main(["show", "last", "--json"]) == 0


def test_refused_before_anything_runs(
    home: Path, tiny_model: Path, tiny_data: Path, ordered: list[list[RunConfig]]
) -> None:
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
