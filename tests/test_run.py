"""A run's folder answers truly, whatever was left in it."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studio import events, run
from studio.config import build
from studio.errors import OrderError, RunError
from studio.events import Lock
from studio.run import Run, create, summary
from studio.runs import compare, recovery
from studio.ui import live
from studio.ui.tail import Tail

ORDER = build({"name": "one", "data": {"train": "rows.json"}})


@pytest.fixture
def one(home: Path) -> Run:
    return create(ORDER)


def alive(one: Run) -> Lock:
    lock = Lock(one.lock)
    assert lock.acquire()
    return lock


@pytest.mark.parametrize(
    ("told", "held", "stop", "state"),
    [
        ([], False, False, "queued"),
        ([], True, False, "starting"),
        ([("phase", "starting")], True, False, "starting"),
        ([("phase", "loading model")], True, False, "starting"),
        ([("phase", "training")], True, False, "running"),
        ([("phase", "saving")], True, False, "running"),
        ([("phase", "training")], True, True, "stopping"),
        ([("phase", "training")], False, False, "lost"),
        ([("phase", "training")], False, True, "lost"),
        ([("phase", "training"), ("end", "finished")], True, False, "running"),
        ([("phase", "training"), ("end", "finished")], False, False, "finished"),
        ([("phase", "training"), ("end", "stopped")], True, True, "stopping"),
        ([("phase", "training"), ("end", "stopped")], False, True, "stopped"),
        ([("phase", "training"), ("end", "failed")], False, False, "failed"),
        ([("end", "lost")], False, False, "lost"),
        ([("phase", "training"), ("end", "failed"), ("phase", "queued")], False, False, "queued"),
        (
            [("phase", "training"), ("end", "failed"), ("phase", "queued"), ("phase", "starting")],
            True,
            False,
            "starting",
        ),
    ],
)
def test_state(one: Run, told: list[tuple[str, str]], held: bool, stop: bool, state: str) -> None:
    for kind, name in told:
        one.append(kind, **{"name" if kind == "phase" else "state": name}, attempt=1)
    lock = alive(one) if held else None
    if stop:
        one.request_stop()
    assert one.state() == one.state(one.events()) == summary(one)["state"] == state
    if lock:
        lock.release()


def test_putting_in_order_is_not_taken_for_life(one: Run) -> None:
    one.append("phase", name="training", attempt=1)
    supervisor = Lock(one.lock)
    with recovery.exclusive(one) as first, recovery.exclusive(one) as second:
        assert (first, second) == (True, False)
        assert not one.alive()
        assert summary(one)["state"] == "lost"
        assert not supervisor.acquire()
    assert supervisor.acquire()
    with recovery.exclusive(one) as mine:
        assert not mine
        assert one.alive()


def test_a_deleted_lock_file_is_no_life(one: Run) -> None:
    one.append("phase", name="training", attempt=1)
    assert recovery.reconcile(one) == "lost"
    end = one.events()[-1]
    assert end["kind"] == "end"
    assert end["cause"]
    assert end["action"]
    assert recovery.reconcile(one) == "lost"
    assert sum(event["kind"] == "end" for event in one.events()) == 1


def test_lost_after_a_stop_request_is_stopped(one: Run) -> None:
    one.append("phase", name="training", attempt=1)
    one.request_stop()
    assert recovery.reconcile(one) == "stopped"


def test_lost_names_what_the_log_says(one: Run) -> None:
    one.append("phase", name="training", attempt=1)
    one.log.write_text("step 1\nRuntimeError: CUDA out of memory\n")
    assert "memory" in summary(one)["cause"]
    recovery.reconcile(one)
    assert summary(one)["reason"] == "memory"


def test_the_living_are_not_settled(one: Run) -> None:
    one.append("phase", name="training", attempt=1)
    lock = alive(one)
    assert recovery.reconcile(one) == "running"
    lock.release()


def test_an_end_that_lacks_its_newline_counts(one: Run) -> None:
    one.append("phase", name="training", attempt=1)
    one.append("end", state="finished", attempt=1)
    os.truncate(one.events_file, one.events_file.stat().st_size - 1)
    assert recovery.reconcile(one) == "finished"


def test_steps_beyond_a_resume_are_superseded(one: Run) -> None:
    for first, last, origin in ((1, 9, 0), (6, 8, 5), (8, 12, 7)):
        one.append("phase", name="training", from_step=origin)
        for step in range(first, last + 1):
            one.append("step", step=step, loss=100 * origin + step)
    steps = [event for event in run.current_events(one.events()) if event["kind"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 13))
    assert [event["loss"] for event in steps][5:8] == [506, 507, 708]


def test_summary(one: Run) -> None:
    for fields in (
        {"kind": "phase", "name": "starting"},
        {"kind": "plan", "steps": 10, "trainable": 5},
        {"kind": "eval", "step": 0, "loss": 3.0},
        {"kind": "phase", "name": "training", "from_step": 0},
        {"kind": "step", "step": 1, "loss": 2.0, "tokens_per_second": 10, "memory": 7},
        {"kind": "eval", "step": 1, "loss": 1.5},
        {"kind": "step", "step": 2, "loss": None, "memory": 9},
        {"kind": "eval", "step": 2, "loss": 1.7},
        {"kind": "end", "state": "finished", "peak_memory": 8},
        {"kind": "saved", "what": "export", "path": "out.gguf"},
        {"kind": "note", "level": "error", "text": "The upload failed."},
    ):
        one.append(fields.pop("kind"), attempt=1, **fields)
    told = summary(one)
    assert told["state"] == "finished"
    assert (told["eval_loss_before"], told["eval_loss"], told["best_eval_loss"]) == (3.0, 1.7, 1.5)
    assert (told["step"], told["steps"], told["train_loss"], told["peak_memory"], told["trainable"]) == (
        2,
        10,
        None,
        9,
        5,
    )
    assert (told["trained"], told["saved"], told["exported"], told["uploaded"]) == (True, False, ["out.gguf"], [])
    assert (told["name"], told["method"], told["data"], told["result"]) == ("one", "lora", "rows.json", None)
    json.dumps(told)


def test_a_run_without_a_supervisor_has_its_time_and_its_reward(one: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: passed[0])
    for passed[0], kind, told in (
        (5.0, "phase", {"name": "queued"}),
        (100.0, "phase", {"name": "reading data"}),
        (130.0, "step", {"step": 1, "loss": 0.0, "preference": {"reward": 0.25}}),
        (140.0, "end", {"state": "finished"}),
    ):
        one.append(kind, **told)
    found = summary(one)
    assert (found["seconds"], found["reward"]) == (40.0, 0.25)


def test_seconds_leave_out_the_waiting(one: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: passed[0])
    for passed[0], kind, told in (
        (100.0, "phase", {"name": "starting"}),
        (110.0, "end", {"state": "stopped"}),
        (5000.0, "phase", {"name": "starting"}),
        (5003.0, "phase", {"name": "training"}),
        (9000.0, "end", {"state": "lost"}),
    ):
        one.append(kind, **told)
    monkeypatch.undo()
    assert summary(one)["seconds"] == 13.0


@pytest.mark.parametrize("step", [-32_400, 32_400])
def test_a_clock_that_is_set_changes_no_duration(one: Run, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The time of day is set by nine hours in the middle of a training: elapsed, left and the curve's seconds go on
    as they were.
    """
    wall, passed = [1_800_000_000.0], [500.0]

    def pass_by(seconds: float) -> None:
        wall[0], passed[0] = wall[0] + seconds, passed[0] + seconds

    monkeypatch.setattr(events.time, "time", lambda: wall[0])
    monkeypatch.setattr(events.time, "monotonic", lambda: passed[0])
    lock = alive(one)
    one.append("phase", name="starting", attempt=1)
    one.append("plan", steps=100, attempt=1)
    one.append("phase", name="training", attempt=1)
    for number in range(1, 51):
        pass_by(2.0)
        wall[0] += step if number == 25 else 0
        one.append("step", step=number, loss=1.0, tokens=10 * number, attempt=1)
    pass_by(2.0)
    told = live.status(Tail(one).refresh())
    assert (told["state"], told["seconds"]) == ("running", 102.0)
    assert told["left"] == pytest.approx(100.0, abs=2)
    curve = compare.curves(one.events())["train"]["time"]
    assert curve == [2.0 * number for number in range(1, 51)]
    assert Tail(one).refresh().columns["time"].tolist() == curve
    one.append("end", state="finished", attempt=1)
    lock.release()
    assert summary(one)["seconds"] == 102.0


def test_a_diary_from_before_the_monotonic_clock_still_has_seconds(one: Run) -> None:
    for at, name in ((100.0, "starting"), (110.0, "training"), (20.0, "saving"), (25.0, "saving")):
        with open(one.events_file, "a") as file:
            file.write(json.dumps({"at": at, "kind": "phase", "name": name, "attempt": 1}) + "\n")
    assert summary(one)["seconds"] == 15.0


def test_full_disk_drops_events_counts_them_and_still_ends(one: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    one.allocate_reserve()
    append, room = events.append, [0]

    def full(path: Path, kind: str, /, **fields: object) -> None:
        if not room[0] and (one.folder / ".reserve").exists():
            raise OSError(28, "No space left on device")
        append(path, kind, **fields)

    monkeypatch.setattr(events, "append", full)
    one.append("step", step=1, loss=1.0)
    one.append("step", step=2, loss=1.0)
    room[0] = 1
    one.append("step", step=3, loss=1.0)
    room[0] = 0
    one.append("end", state="failed")
    told = one.events()
    assert [(event["kind"], event.get("dropped")) for event in told[1:]] == [("step", 2), ("end", None)]


def test_changes_are_recorded_and_config_yaml_stays(one: Run) -> None:
    before = (one.folder / "config.yaml").read_bytes()
    one.change("smaller", training={"batch_size": 1})
    one.change("longer", training={"epochs": 9})
    again = Run(one.folder)
    assert (again.config.training.batch_size, again.config.training.epochs) == (1, 9)
    assert [change["why"] for change in again.changes()] == ["smaller", "longer"]
    with pytest.raises(OrderError):
        one.change("wrong", training={"batch_size": 0})
    assert len(one.changes()) == 2
    assert (one.folder / "config.yaml").read_bytes() == before


def test_label(one: Run) -> None:
    one.label(note="first try", star=True)
    one.label(name="Best")
    told = summary(Run(one.folder))
    assert (told["name"], told["note"], told["star"]) == ("Best", "first try", True)
    (one.folder / "label.json").write_text("{")
    assert summary(one)["name"] == "one"


def test_a_spoilt_order_is_still_listed(one: Run) -> None:
    (one.folder / "config.yaml").write_bytes(b"\xff\xfe")
    told = summary(Run(one.folder))
    assert (told["name"], told["model"]) == ("one", None)
    with pytest.raises(RunError):
        _ = Run(one.folder).config


def test_asking(one: Run) -> None:
    with pytest.raises(RunError, match="not running"):
        one.ask("save")
    lock = alive(one)
    one.ask("save")
    one.ask("sample")
    with pytest.raises(RunError, match="cannot be asked"):
        one.ask("dance")
    assert one.take_requests() == {"save", "sample"}
    assert one.take_requests() == set()
    lock.release()


@pytest.mark.parametrize(("how", "told"), [(False, "keep"), (True, "discard"), ("pause", "pause"), ("disk", "disk")])
def test_stop_file(one: Run, how: str | bool, told: str) -> None:
    assert one.stop_request() is None
    one.request_stop(how)
    assert one.stop_request() == told


def test_names_and_finding(home: Path) -> None:
    first, second = create(ORDER), create(ORDER)
    assert first.id != second.id
    assert {one.id for one in run.runs()} == {first.id, second.id}
    assert run.find(first.id).id == first.id
    with pytest.raises(RunError, match="2 runs"):
        run.find("one")
    with pytest.raises(RunError, match="no run 'zzz'"):
        run.find("zzz")
    assert run.find("last").id == second.id
    longer = create(ORDER.with_changes(name="two-ones"))
    assert run.find("two-ones").id == longer.id
    wanted = create(ORDER.with_changes(name="two"))
    assert run.find("two").id == wanted.id
    assert run.find(wanted.id[11:]).id == wanted.id  # with the time; it is a part of the longer one's id too


def test_delete(home: Path) -> None:
    one = create(ORDER)
    lock = alive(one)
    with pytest.raises(RunError, match="still running"):
        run.delete(one)
    lock.release()
    one.result.mkdir()
    (one.result / "weights").write_bytes(bytes(1000))
    sizes = one.sizes()
    assert sizes["model"] == 1000
    assert sizes["total"] == sizes["model"] + sizes["rest"]
    assert run.delete(one) == sizes["total"]
    assert run.runs() == []
    assert list((home / "runs").iterdir()) == []


def test_delete_keeps_files_when_told(home: Path) -> None:
    one = create(ORDER)
    run.delete(one, keep_files=True)
    assert run.runs() == []
    assert (home / "removed" / one.id / "config.yaml").is_file()


def test_sweep(home: Path) -> None:
    one = create(ORDER)
    for name in (".1-2.tmp", ".x.deleted"):
        (home / "runs" / name).mkdir()
    run.sweep()
    assert [path.name for path in (home / "runs").iterdir()] == [one.id]


def test_compare(home: Path) -> None:
    first, second = create(ORDER), create(ORDER.with_changes(method={"rank": 4}, training={"epochs": 1}))
    for one, loss in ((first, 2.0), (second, 1.0)):
        one.append("phase", name="training", from_step=0)
        one.append("step", step=1, loss=loss, tokens=50)
        one.append("eval", step=1, loss=loss)
        one.append("sample", step=1, prompt="Hi", answer=f"answer {loss}")
        one.append("end", state="finished")
    first.append("sample", step=1, prompt="alone", answer="x")
    told = compare.compare([first, second])
    assert {row["key"] for row in told["settings"]} == {"method.rank", "training.epochs"}
    assert told["answers"] == [{"prompt": "Hi", "answers": ["answer 2.0", "answer 1.0"]}]
    assert [curve["train"]["loss"] for curve in told["curves"]] == [[2.0], [1.0]]
    assert told["curves"][0]["eval"]["tokens"] == [50]
    assert next(row["values"] for row in told["numbers"] if row["key"] == "eval_loss") == [2.0, 1.0]
    json.dumps(told)


def test_what_several_write_on_a_run_at_once_all_stays(one: Run) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: Run(one.folder).label(**{f"key{n}": n}), range(40)))
        list(pool.map(lambda n: Run(one.folder).change(f"why {n}", training={"epochs": n + 1}), range(40)))
    assert len(one.label()) == 40
    assert {change["why"] for change in one.changes()} == {f"why {n}" for n in range(40)}
