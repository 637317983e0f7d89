"""Races: every setting's steps are those of a run by itself, the worse half is stopped, and a winner goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from studio import config, queue, race, race_settings
from studio.config import RunConfig
from studio.contest import Contest
from studio.errors import OrderError, RunError
from studio.run import Run, create
from studio.worker import keep_general, train
from studio.worker import race as racer
from studio.worker.trainer import StudioTrainer

BASE: dict[str, Any] = {
    "data": {"eval": 0.2},
    "training": {"max_steps": 8, "batch_size": 4, "accumulation": 1, "threads": 1, "forgetting": False, "samples": 0},
}
METHODS = [
    ("method.name=lora", "method.rank=4"),
    ("method.name=lora", "method.rank=8", "method.dora=true", "training.learning_rate=0.001"),
    ("method.name=ia3",),
    ("method.name=adapter", "method.dropout=0.1"),
    ("method.name=prefix",),
    ("method.name=p_tuning",),
]


def base(model: Path, data: Path, **training: Any) -> RunConfig:
    plain = {**BASE, "model": str(model), "data": {**BASE["data"], "train": str(data)}}
    return config.build(plain | {"training": BASE["training"] | training})


def raced(order: RunConfig) -> Run:
    """The race, run in this process; its supervisor's part is done by hand."""
    one = create(order)
    assert racer.main(one) == 0, one.events()[-1]
    return one


def weights(folder: Path) -> bytes:
    """The result's tensors as they lie on disk."""
    (file,) = folder.glob("*.safetensors")
    return file.read_bytes()


def test_settings_that_nothing_tells_apart_are_refused(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A race on one row trained to its end and named no winner, without a word."""
    (tmp_path / "one.json").write_text(json.dumps([{"instruction": "Hello?", "output": "Hello."}]))
    one = create(race.order(base(tiny_model, tmp_path / "one.json"), [("method.rank=2",), ("method.rank=4",)]))
    assert racer.main(one) == 1
    assert one.events()[-1]["cause"] == "No row is held out to measure on."


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue starts nothing."""
    monkeypatch.setattr(queue, "advance", lambda: None)


def test_every_turn_has_autocast() -> None:
    """accelerate leaves a model that it has prepared before as it is, so its mark goes with what it put around it."""
    from studio.worker.turn import forward_restored

    model = torch.nn.Linear(2, 2)
    for _ in range(2):
        with forward_restored(model):
            AcceleratorState._reset_state(True)
            Accelerator(cpu=True, mixed_precision="bf16").prepare_model(model)
            assert "forward" in vars(model)
        assert "forward" not in vars(model)
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("methods", [METHODS[3:5], pytest.param(METHODS, marks=pytest.mark.rare)], ids=["two", "six"])
def test_same_steps_as_a_run_by_itself(
    home: Path, tiny_model: Path, tiny_data: Path, methods: list[tuple[str, ...]]
) -> None:
    """Settings of several methods over one base, four turns each: the very weights of separate runs."""
    order = race.order(base(tiny_model, tiny_data), methods, halving=False)
    one = raced(order)
    rows = race.table(one)
    assert [row["place"] for row in rows] == list(range(1, len(methods) + 1))
    assert {row["state"] for row in rows} == {"finished"}
    assert all(row["shared"] for row in rows)
    losses = [row["eval_loss"] for row in rows]
    assert losses == sorted(losses)
    for number, alone in enumerate(race.orders(order), 1):
        part, own = race.contestant(one, number), create(alone)
        steps = [event for event in part.events() if event.get("from_step") is not None]
        assert [event["from_step"] for event in steps] == [0, 2, 4, 6]
        assert train.main(own) == 0
        assert weights(part.result) == weights(own.result), alone.method
        assert part.events()[-1]["state"] == "finished"


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(("method.name=qlora",), marks=pytest.mark.rare),
        pytest.param(("method.name=lora", "method.init=pissa"), marks=pytest.mark.rare),
        ("method.name=full",),
    ],
    ids=["qlora", "pissa", "full"],
)
def test_one_after_another(home: Path, tiny_model: Path, tiny_data: Path, settings: tuple[str, ...]) -> None:
    """What cannot share the base has one of its own, is said to, and is measured all the same."""
    order = race.order(
        base(tiny_model, tiny_data, max_steps=2), [("method.name=lora",), ("method.name=ia3",), settings], halving=False
    )
    one = raced(order)
    rows = {row["contestant"]: row for row in race.table(one)}
    assert [rows[number]["shared"] for number in (1, 2, 3)] == [True, True, False]
    notes = [event["text"] for event in one.events() if event["kind"] == "note"]
    assert any("over a base of its own" in text and rows[3]["label"] in text for text in notes)
    own = create(race.orders(order)[2])
    assert train.main(own) == 0
    assert weights(race.contestant(one, 3).result) == weights(own.result)


def test_qlora_settings_share_their_base(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    order = race.order(
        base(tiny_model, tiny_data, max_steps=4),
        [("method.name=qlora", f"method.rank={rank}") for rank in (2, 4)],
        halving=False,
    )
    one = raced(order)
    for number, alone in enumerate(race.orders(order), 1):
        own = create(alone)
        assert train.main(own) == 0
        assert weights(race.contestant(one, number).result) == weights(own.result)


def test_halving_and_the_winner_goes_on(home: Path, tiny_model: Path, tiny_data: Path, still: None) -> None:
    """Six rates: 3 go on after an eighth, 2 after a quarter, 1 after half; kept, it ends with a whole run's weights."""
    rates = ("1e-6", "1e-5", "1e-4", "1e-3", "3e-3", "3e-2")
    order = race.order(
        base(tiny_model, tiny_data, max_steps=16), [(f"training.learning_rate={rate}",) for rate in rates]
    )
    one = raced(order)
    rows = race.table(one)
    assert sorted(row["step"] for row in rows) == [2, 2, 2, 4, 8, 8]
    assert [len(row["losses"]) for row in rows] == [3, 3, 2, 1, 1, 1]
    for level in range(3):  # who went on was better than who did not
        losses = [row["losses"][level] for row in rows if len(row["losses"]) > level]
        gone_on = [row["losses"][level] for row in rows if len(row["losses"]) > level + 1]
        assert not gone_on or max(gone_on) <= sorted(losses)[len(gone_on) - 1]
    assert [row["state"] for row in rows] == ["won", *["out"] * 5]
    assert "was number 2 of 2" in rows[1]["cause"]
    assert one.events()[-1]["state"] == "finished"
    plan = next(event for event in one.events() if event["kind"] == "plan")
    assert sum(row["step"] for row in rows) == plan["steps"] == 26
    winner = config.load(one.folder / "winner.yaml")
    assert winner.learning_rate == rows[0]["learning_rate"]

    kept = race.keep(one)
    assert kept.state() == "queued"
    own = create(race.orders(order)[rows[0]["contestant"] - 1])
    assert train.main(kept) == train.main(own) == 0
    assert weights(kept.result) == weights(own.result)
    assert kept.state() == "finished"
    loser = race.keep(one, rows[-1]["contestant"])
    assert train.main(loser) == 0
    with pytest.raises(RunError, match="no setting 9"):
        race.keep(one, 9)


def test_cut_off_and_resumed(
    home: Path, tiny_model: Path, tiny_data: Path, still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended hard between two turns: the race goes on where it was, with the same end."""
    order = race.order(
        base(tiny_model, tiny_data), [(f"training.learning_rate={rate}",) for rate in ("1e-4", "1e-3", "1e-2")]
    )
    whole, cut = raced(order), create(order)
    turns, turn = [], racer.RaceRun.turn

    def killed_at_the_fourth(self: Any, *given: Any) -> None:
        turns.append(given[0].number)
        if len(turns) == 4:
            raise KeyboardInterrupt
        turn(self, *given)

    monkeypatch.setattr(racer.RaceRun, "turn", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        racer.main(cut)
    monkeypatch.undo()
    monkeypatch.setenv("STUDIO_HOME", str(home))
    before = race.table(cut)
    assert cut.state() == "lost"
    assert {row["step"] for row in before} == {1}
    assert racer.main(cut) == 0
    figures = ("contestant", "place", "state", "step", "losses", "eval_loss")
    assert [[row[key] for key in figures] for row in race.table(cut)] == [
        [row[key] for key in figures] for row in race.table(whole)
    ]


def test_stopped_by_the_user(
    home: Path, tiny_model: Path, tiny_data: Path, still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after the step, says so, and what was learnt can be gone on with."""
    one = create(race.order(base(tiny_model, tiny_data), METHODS[:2], halving=False))
    count = racer.RaceRun.count

    def stop_at_the_third(self: Any, contestant: Any, step: dict[str, Any]) -> None:
        count(self, contestant, step)
        if sum(self.done.values()) == 3:
            one.request_stop()

    monkeypatch.setattr(racer.RaceRun, "count", stop_at_the_third)
    assert racer.main(one) == 0
    assert one.events()[-1]["state"] == "stopped"
    rows = {row["contestant"]: row for row in race.table(one)}
    assert [(rows[number]["step"], rows[number]["state"]) for number in (1, 2)] == [(2, "stopped"), (2, "stopped")]
    one.stop_file.unlink()
    kept = race.keep(one, 1)
    own = create(race.orders(one.config)[0])
    assert train.main(kept) == train.main(own) == 0
    assert weights(kept.result) == weights(own.result)


def test_a_setting_that_fails_ends_alone(
    home: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that becomes no number: the table says why, and the other setting ends as a run by itself does."""
    sound = StudioTrainer.micro_batch_loss

    def blown_up(self: StudioTrainer, model: Any, micro_batch: dict[str, Any]) -> Any:
        loss = sound(self, model, micro_batch)
        return loss * float("nan") if self.method.rank == 8 and model.training else loss

    monkeypatch.setattr(StudioTrainer, "micro_batch_loss", blown_up)
    order = race.order(
        base(tiny_model, tiny_data, max_steps=4), [("method.rank=4",), ("method.rank=8",)], halving=False
    )
    one = raced(order)
    rows = {row["contestant"]: row for row in race.table(one)}
    assert (rows[1]["state"], rows[1]["place"]) == ("finished", 1)
    assert (rows[2]["state"], rows[2]["place"]) == ("failed", None)
    assert "not a number" in rows[2]["cause"]
    own = create(race.orders(order)[0])
    assert train.main(own) == 0
    assert weights(race.contestant(one, 1).result) == weights(own.result)


def test_settings_of_the_terminal() -> None:
    common, varied = race_settings.variants(
        ["training.batch_size=2", "method.rank=4,8", "method.target_modules=[q, v],all-linear"]
    )
    assert common == ["training.batch_size=2"]
    assert varied == [
        (f"method.rank={rank}", f"method.target_modules={modules}")
        for rank in (4, 8)
        for modules in ("[q, v]", "all-linear")
    ]
    assert race_settings.labels(Contest(settings=varied[:1])) == ["rank 4 · targets [q, v]"]
    for bad in ("training.seed=1,2", "data.max_length=64,128", "method.rank=4,4", "model=a,b"):
        with pytest.raises(OrderError):
            race_settings.variants([bad])


@pytest.mark.parametrize("count", range(1, 17))
def test_one_is_left_at_half_of_a_run(count: int) -> None:
    contest = Contest(settings=((),) * count)
    rungs = contest.rungs()
    assert rungs[-1] == 0.5
    assert contest.kept(len(rungs) - 1, count) == 1
    if count >= 4:
        assert contest.cost() <= 0.4


def test_a_rung_ends_at_a_whole_step() -> None:
    """Six settings of 20 steps: all to step 3, three to 5, two to 10."""
    assert 6 * 20 * Contest(settings=((),) * 6).cost(20) == pytest.approx(6 * 3 + 3 * 2 + 2 * 5)


def test_priced_as_one_base_and_the_adapters(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    """Between two ranks and three lies what the third adapter holds, and a race that does not fit is refused."""
    from studio import estimate, model
    from studio.device import devices

    facts, device = model.facts(tiny_model), devices()[0]
    two, three = (
        race.price(race.order(base(tiny_model, tiny_data), [(f"method.rank={rank}",) for rank in ranks]), facts, device)
        for ranks in ((4, 8), (2, 4, 8))
    )
    alone = estimate.estimate(
        facts, race.orders(race.order(base(tiny_model, tiny_data), [("method.rank=2",)]))[0], device
    )
    assert three.total - two.total == 4 * alone.trainable
    assert two.total == max(one.total for one in two.alone) + 4 * min(one.trainable for one in two.alone)
    apart = race.price(
        race.order(base(tiny_model, tiny_data), [("method.name=lora",), ("method.name=qlora",)]), facts, device
    )
    assert apart.waiting == 0


def test_refused_before_a_run_exists(
    home: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.device import devices

    small = devices()[0].model_copy(update={"free": 1 << 20})
    monkeypatch.setattr(race, "devices", lambda: [small])
    order = race.order(base(tiny_model, tiny_data), METHODS[:2])
    with pytest.raises(OrderError, match="are free"):
        race.start(order)
    monkeypatch.undo()
    monkeypatch.setenv("STUDIO_HOME", str(home))
    for plain in ({"data": {"eval": 0}}, {"training": {"compile": True}}, {"training": {"devices": 2}}):
        with pytest.raises(OrderError):
            race.start(race.order(base(tiny_model, tiny_data).with_changes(**plain), METHODS[:2]))
    with pytest.raises(OrderError, match=r"Unknown key method\.rank"):
        race.start(race.order(base(tiny_model, tiny_data), [("method.name=ia3", "method.rank=2"), METHODS[0]]))
    assert not (home / "runs").exists() or not [path for path in (home / "runs").iterdir() if path.is_dir()]


def test_the_order_survives_its_file(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    order = race.order(base(tiny_model, tiny_data), METHODS[:3], keep=True)
    assert config.parse(order.to_yaml()).race == order.race
    one = create(order)
    assert json.loads(json.dumps([row["label"] for row in race.table(one)])) == race_settings.labels(order.race)
    assert race.winner_order(one) is None
    shutil.rmtree(one.folder)


def test_the_brake_asks_the_base_once_a_race(
    home: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two settings of different strength in four turns each; a run by itself ends with the same weights."""
    asked: list[int] = []
    ask_base = keep_general.ask_base

    def counted(model: Any, rows: Any, device: Any) -> Any:
        asked.append(len(rows))
        return ask_base(model, rows, device)

    monkeypatch.setattr(keep_general, "ask_base", counted)
    settings = [("training.keep_general=0.5",), ("training.keep_general=2",)]
    order = race.order(base(tiny_model, tiny_data, keep_general=1), settings, halving=False)
    one = raced(order)
    assert len(asked) == 1
    for number, alone in enumerate(race.orders(order), 1):
        own = create(alone)
        assert train.main(own) == 0
        assert weights(race.contestant(one, number).result) == weights(own.result)
