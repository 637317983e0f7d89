"""What a page asks each second: only new points, the right state, bounded answers, no other run's folder."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from studio import events, run
from studio.home import subfolder
from studio.ui import device, live, log_window, run_details, who
from studio.ui.tail import COLUMNS, Tail
from tests.ui.fakes import FakeRun

pytestmark = pytest.mark.usefixtures("home")
NAME = "2026-11-22-1200-one"
ODD_LINES = (
    "[]",
    "null",
    '"text"',
    "{}",
    '{"kind": "step"}',
    '{"kind": "step", "at": "x", "step": "three", "loss": [1]}',
    '{"kind": "step", "at": 1e400, "step": 1, "loss": 1e999}',
    '{"kind": "eval", "step": null, "loss": "low"}',
    '{"kind": "plan", "steps": "many", "data": 5}',
    '{"kind": "plan", "steps": 0, "data": {"sources": [1]}}',
    '{"kind": "phase", "name": ["training"]}',
    '{"kind": "phase", "name": {"a": 1}}',
    '{"kind": "end", "state": 5}',
    '{"kind": "end", "state": ["finished"], "cause": {"a": 1}}',
    '{"kind": "sample", "prompt": 5}',
    '{"kind": ["step"]}',
    '{"kind": "step", "attempt": "x", "step": 3, "loss": 1.0, "at": 1.0}',
    '{"kind": "plan", "attempt": 1, "at": 1.0, "steps": "many"}',
    '{"kind": "plan", "attempt": 1, "at": 1.0, "data": [1]}',
    '{"kind": "step", "attempt": 1, "at": 1.0, "step": 1, "loss": [1], "tokens": {}}',
    '{"kind": "eval", "attempt": 1, "at": 1.0, "step": 1, "loss": "low"}',
    '{"kind": "eval", "attempt": 1, "at": 1.0, "step": 1, "loss": null}',
    '{"kind": "end", "attempt": 1, "at": 1.0, "state": "finished", "peak_memory": "much"}',
    '{"kind": "phase", "attempt": 1, "at": 1.0, "name": "training", "from_step": "x", "order": []}',
    '{"kind": "forgetting", "attempt": 1, "at": 1.0, "step": "x"}',
    '{"kind": "saved", "attempt": 1, "at": 1.0, "what": 5}',
    "[" * 3000,
)  # what a disk fault, another program or another version may have written


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "tails", live.Tails())
    monkeypatch.setattr(live, "listing", live.Listing())
    monkeypatch.setattr(live, "FRESH", 0.0)


def asked(**ask: Any) -> dict[str, Any]:
    return orjson.loads(live.poll(ask).body)


def place(part: dict[str, Any]) -> dict[str, Any]:
    """Where a page stands after an answer, as static/live.js asks on."""
    return {
        "id": part["id"],
        "generation": part["generation"],
        "points": part["points"],
        "others": part["next"],
        "stride": part["stride"],
    }


def whole(name: str) -> dict[str, list[float]]:
    """All points, asked for piece by piece."""
    columns: dict[str, list[float]] = {key: [] for key in COLUMNS}
    ask: dict[str, Any] = {"id": name}
    while True:
        part = asked(run=ask)["run"]
        if part["fresh"]:
            columns = {key: [] for key in COLUMNS}
        for key, values in zip(part["names"], part["columns"], strict=True):
            columns[key] += values
        ask = place(part)
        if not part["more"]:
            return columns


def test_only_new_points_travel() -> None:
    fake = FakeRun(NAME, steps=50)
    fake.start()
    fake.train(20)
    first = asked(run={"id": NAME})["run"]
    assert first["fresh"]
    assert first["columns"][0] == list(range(1, 21))
    assert asked(run=place(first))["run"]["columns"][0] == []
    fake.train(23, first=21)
    then = asked(run=place(first))["run"]
    assert not then["fresh"]
    assert then["columns"][0] == [21, 22, 23]
    fake.free()


def test_a_long_curve_comes_in_pieces_and_is_complete() -> None:
    FakeRun(NAME, steps=4500).start(alive=False)
    fake = FakeRun("2026-11-22-1201-two", steps=4500)
    fake.start(alive=False)
    fake.train()
    part = asked(run={"id": fake.folder.name})["run"]
    assert len(part["columns"][0]) == live.POINTS_PER_ANSWER
    assert part["more"]
    assert whole(fake.folder.name)["step"] == list(range(1, 4501))


def test_a_very_long_curve_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_POINTS", 100)
    fake = FakeRun(NAME, steps=450)
    fake.start(alive=False)
    fake.train()
    assert whole(NAME)["step"] == list(range(1, 451, 5))


def test_after_a_resume_the_curve_starts_over_and_no_step_stands_twice() -> None:
    fake = FakeRun(NAME, steps=60)
    fake.start(alive=False)
    fake.train(40)
    before = asked(run={"id": NAME})["run"]
    fake.start(alive=False, from_step=30)
    fake.train(35, first=31)
    after = asked(run=place(before))["run"]
    assert after["fresh"]
    assert after["generation"] != before["generation"]
    assert whole(NAME)["step"] == list(range(1, 36))
    assert [event["step"] for event in after["others"] if event["kind"] == "eval"] == [0, 6, 12, 18, 24, 30]
    tokens = whole(NAME)["tokens"]
    assert tokens == sorted(tokens)


def test_a_restarted_server_goes_on_where_the_page_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRun(NAME, steps=50)
    fake.start(alive=False)
    fake.train(20)
    first = asked(run={"id": NAME})["run"]
    monkeypatch.setattr(live, "tails", live.Tails())  # as a new process would begin
    fake.train(25, first=21)
    then = asked(run=place(first))["run"]
    assert not then["fresh"]
    assert then["columns"][0] == [21, 22, 23, 24, 25]


def test_nan_and_torn_lines() -> None:
    fake = FakeRun(NAME, steps=9)
    fake.start(alive=False)
    fake.say("step", step=1, loss=None, epoch=0.1)
    with open(fake.events_file, "a") as file:
        file.write('{"at": 1, "kind": "step", "st')
    part = asked(run={"id": NAME})["run"]
    assert part["columns"][0] == [1]
    assert part["columns"][2] == [None]


def test_every_point_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRun(NAME, steps=50)
    fake.start()
    fake.train(30)
    reads: list[int] = []
    read = events.read
    monkeypatch.setattr(
        "studio.ui.tail.events.read",
        lambda path, cursor=0, limit=None: reads.append(cursor) or read(path, cursor, limit),
    )
    for _ in range(10):  # ten tabs
        asked(run={"id": NAME})
    assert reads.count(0) == 1
    fake.free()


def test_the_processors_load_is_measured_whichever_thread_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    times, looks = type(psutil.cpu_times()), iter(range(10))
    nothing = dict.fromkeys(times._fields, 0.0)
    monkeypatch.setattr(
        psutil, "cpu_times", lambda: times(**nothing | {"user": 30.0 * (n := next(looks)), "idle": 70.0 * n})
    )
    monkeypatch.setattr(device, "_seen", {"at": float("-inf")})
    monkeypatch.setattr(device, "FRESH", -1.0)
    for _ in range(3):
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(device.panel, None).result()["load"] == 30.0


def test_states_percent_and_time_left() -> None:
    fake = FakeRun(NAME, steps=100, age=60)
    fake.start()
    fake.train(50)
    row = asked(run={"id": NAME})["run"]["status"]
    assert (row["state"], row["step"], row["steps"], row["percent"]) == ("running", 50, 100, 50.0)
    assert row["left"] == pytest.approx(50 * 0.6, rel=0.2)
    (fake.folder / "stop").touch()
    row = asked(run={"id": NAME})["run"]["status"]
    assert (row["state"], row["left"]) == ("stopping", None)
    (fake.folder / "stop").unlink()
    assert asked()["now"][0]["id"] == NAME
    fake.free()
    assert asked(run={"id": NAME})["run"]["status"]["state"] == "lost"
    fake.take()
    fake.train(100, first=51)
    fake.finish()
    row = asked(run={"id": NAME})["run"]["status"]
    assert (row["state"], row["percent"], row["left"]) == ("finished", 100.0, None)
    assert asked()["now"] == []


def test_summary_from_the_digest_equals_the_summary_of_the_whole_diary() -> None:
    fake = FakeRun(NAME, steps=200)
    fake.start(alive=False)
    fake.train(120)
    fake.start(alive=False, from_step=100)
    fake.train(150, first=101)
    fake.fail()
    one = run.find(NAME)
    assert run.summary(one, live.tails.of(one).digest()) == run.summary(one)


def test_the_list_travels_only_when_it_has_changed() -> None:
    fake = FakeRun(NAME, steps=10)
    fake.start(alive=False)
    fake.train()
    fake.finish()
    first = asked(list=None)["list"]
    assert [row["id"] for row in first["rows"]] == [NAME]
    assert asked(list=first["mark"])["list"] is None
    FakeRun("2026-11-22-1300-new", steps=10)
    assert len(asked(list=first["mark"])["list"]["rows"]) == 2


@pytest.mark.parametrize("name", ["", ".", "..", "../runs", "/etc", "2026", "nobody", ".hidden", "a/b", "x\0y"])
def test_no_other_folder_is_read(name: str, home: Path) -> None:
    FakeRun(NAME)
    (home / "runs" / ".hidden").mkdir()
    (home / "runs" / ".hidden" / "config.yaml").write_text("data: {train: x}")
    assert "gone" in asked(run={"id": name})["run"]
    assert run_details.whole_log({"id": name}).body == b""
    assert orjson.loads(run_details.order({"id": name}).body)["order"] == ""


def test_log_by_offset() -> None:
    fake = FakeRun(NAME)
    fake.print("one\ntwo")
    first = asked(run={"id": NAME, "log": {}})["run"]["log"]
    assert first["text"] == "one\ntwo\n"
    ask = {"file": first["file"], "at": first["at"]}
    assert asked(run={"id": NAME, "log": ask})["run"]["log"]["text"] == ""
    with open(fake.log, "a") as file:
        file.write("three\nhalf a li")
    then = asked(run={"id": NAME, "log": ask})["run"]["log"]
    assert then["text"] == "three\n"
    assert not then["fresh"]
    assert run_details.whole_log({"id": NAME}).body.endswith(b"half a li")


def test_a_long_log_begins_near_its_end_and_a_replaced_one_anew() -> None:
    fake = FakeRun(NAME)
    fake.print("\n".join(f"line {n}" for n in range(60_000)))
    first = asked(run={"id": NAME, "log": {}})["run"]["log"]
    assert len(first["text"]) <= log_window.LOG_BYTES
    assert first["skipped"] > 0
    assert first["text"].startswith("line ")
    assert first["text"].endswith("line 59999\n")
    os.rename(fake.log, fake.folder / "old.txt")
    fake.print("anew")
    then = asked(run={"id": NAME, "log": {"file": first["file"], "at": first["at"]}})["run"]["log"]
    assert then["fresh"]
    assert then["text"] == "anew\n"


def test_order_and_differences() -> None:
    FakeRun(NAME, seed=1)
    FakeRun("2026-11-22-1300-other", method="full", seed=1)
    told = orjson.loads(run_details.order({"id": NAME}).body)
    assert "rank: 16" in told["order"]
    assert told["plain"]["method"]["rank"] == 16
    rows = orjson.loads(run_details.differences({"ids": [NAME, "2026-11-22-1300-other", "../x"]}).body)["settings"]
    settings = {row["key"]: row["values"] for row in rows}
    assert settings["method.name"] == ["lora", "full"]
    assert "training.seed" not in settings


def test_a_tail_forgets_a_replaced_diary() -> None:
    fake = FakeRun(NAME, steps=10)
    fake.start(alive=False)
    fake.train()
    tail = Tail(run.find(NAME)).refresh()
    assert tail.points == 10
    fake.events_file.write_text(json.dumps({"at": 1, "kind": "phase", "name": "queued"}) + "\n")
    assert tail.refresh().points == 0


def test_a_run_that_compares_answers_has_more_columns() -> None:
    fake = FakeRun(NAME, steps=50)
    fake.start(alive=False)
    first = asked(run={"id": NAME})["run"]
    assert first["names"] == list(COLUMNS)
    for step in (1, 2):
        fake.say("step", step=step, loss=0.6, preference={"accuracy": 0.5 + step / 10, "margin": 0.1})
    part = asked(run=place(first))["run"]
    columns = dict(zip(part["names"], part["columns"], strict=True))
    assert columns["accuracy"] == pytest.approx([0.6, 0.7])
    assert columns["kl"] == [None, None]


def test_a_run_that_cannot_be_read_is_named_beside_those_that_can() -> None:
    FakeRun(NAME).start()
    damaged = subfolder("runs") / "2026-11-22-1300-damaged"
    (damaged / "events.jsonl").mkdir(parents=True)
    told = asked(list=None)["list"]
    assert [row["id"] for row in told["rows"]] == [NAME]
    assert [error["message"] for error in told["unread"]] == [f"The run {damaged.name} cannot be read."]
    assert str(damaged) in told["unread"][0]["hint"]
    assert asked(list=told["mark"])["list"] is None
    with who.acting_as(who.Requester(who.VISITOR)):
        assert str(damaged.parent) not in orjson.dumps(asked(list=None)).decode(), "paths are the owner's"
    (damaged / "events.jsonl").rmdir()
    assert asked(list=told["mark"])["list"]["unread"] == [], "gone from the list when it is mended"


@pytest.mark.parametrize("line", ODD_LINES)
def test_an_odd_line_costs_nobody_the_list(line: str) -> None:
    FakeRun(NAME).start()
    other = FakeRun("2026-11-22-1300-odd")
    other.start()
    with open(other.events_file, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    told = asked(list=None, run={"id": other.folder.name})["list"]
    assert NAME in [row["id"] for row in told["rows"]]
    assert len(told["rows"]) + len(told["unread"]) == 2
