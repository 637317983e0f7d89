"""The queue: order, hold, resume, extend; with a supervisor that is never started, so that nothing runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from studio import queue
from studio.config import build
from studio.device import Device
from studio.errors import RunError
from studio.events import Lock
from studio.run import Run, summary
from studio.runs import claim, goal, recovery, sequence
from tests.runs.test_checkpoints import save

ORDER = build(
    {"name": "one", "data": {"train": "sample"}, "training": {"epochs": 3, "batch_size": 4, "accumulation": 2}}
)


@pytest.fixture(autouse=True)
def started(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing starts: the device is busy. What would have been started is seen by taking the list away."""
    seen: list[str] = []
    monkeypatch.setattr(queue, "start", lambda run: bool(seen.append(run.id)))
    return seen


def three() -> list[Run]:
    return [queue.submit(ORDER.with_changes(name=name)) for name in "abc"]


def ids() -> list[str]:
    return [run.config.name for run in queue.waiting()]


def end(run: Run, state: str) -> None:
    run.append("phase", name="training", attempt=1)
    run.append("end", state=state, attempt=1)


def test_first_come_first_served(started: list[str]) -> None:
    first = three()[0]
    assert ids() == ["a", "b", "c"]
    assert set(started) == {first.id}


def test_each_waiting_run_keeps_the_order_it_was_given() -> None:
    run = queue.submit(ORDER)
    assert Run(run.folder).config == ORDER


@pytest.mark.parametrize(
    ("which", "place", "wanted"),
    [(2, 1, "cab"), (0, 3, "bca"), (0, 2, "bac"), (1, 1, "bac"), (1, 99, "acb"), (1, -5, "bac"), (1, 2, "abc")],
)
def test_move(which: int, place: int, wanted: str) -> None:
    runs = three()
    assert [run.config.name for run in queue.move(runs[which], place)] == list(wanted)
    assert ids() == list(wanted)


def test_move_again_and_again() -> None:
    runs = three()
    for _ in range(60):  # halves between neighbours must not run out
        queue.move(runs[2], 2)
        queue.move(runs[1], 2)
    assert ids() == ["a", "b", "c"]


def test_what_is_over_has_no_place() -> None:
    run = three()[0]
    end(run, "finished")
    with pytest.raises(RunError, match="not waiting"):
        queue.move(run, 1)


def test_later_orders_come_behind_a_moved_one() -> None:
    runs = three()
    queue.move(runs[0], 3)
    queue.submit(ORDER.with_changes(name="d"))
    assert ids() == ["b", "c", "a", "d"]


def test_stop_while_waiting() -> None:
    run = three()[1]
    assert queue.stop(run) == "stopped"
    assert not run.stop_file.exists()
    assert summary(run)["cause"] == "Stopped while it was waiting."
    assert ids() == ["a", "c"]
    with pytest.raises(RunError, match="nothing to stop|not running"):
        queue.stop(run)
    queue.resume(run)
    assert ids() == ["a", "c", "b"]


def test_hold(started: list[str]) -> None:
    runs = three()
    assert queue.pause(runs[0]) == "queued"
    started.clear()
    queue.advance()
    assert started == [runs[1].id]
    assert ids() == ["a", "b", "c"]
    assert summary(runs[0])["hold"]
    queue.resume(runs[0])
    assert not queue.on_hold(runs[0])
    assert ids() == ["a", "b", "c"]
    with pytest.raises(RunError, match="queued already"):
        queue.resume(runs[0])


def test_pause_what_is_over() -> None:
    run = three()[0]
    end(run, "failed")
    with pytest.raises(RunError, match="nothing to pause|not running"):
        queue.pause(run)


@pytest.mark.parametrize("state", ["stopped", "failed", "lost"])
def test_resume(state: str) -> None:
    run = three()[0]
    end(run, state)
    run.request_stop()
    queue.resume(run)
    assert run.state() == "queued"
    assert ids() == ["b", "c", "a"]
    assert not run.stop_file.exists()


def test_resume_of_the_finished_needs_a_change() -> None:
    run = three()[0]
    end(run, "finished")
    with pytest.raises(RunError, match="finished"):
        queue.resume(run)
    goal.extend(run, 2)
    assert run.state() == "queued"
    assert Run(run.folder).config.training.epochs == 5


def test_finish_makes_the_newest_checkpoint_the_goal() -> None:
    run = three()[0]
    end(run, "lost")
    with pytest.raises(RunError, match="no whole checkpoint"):
        goal.finish(run)
    save(run.checkpoints, 7, "rows")
    goal.finish(run)
    assert run.state() == "queued"
    assert Run(run.folder).config.training.max_steps == 7
    end(run, "finished")
    run.result.mkdir()
    (run.result / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match="model already"):
        goal.finish(run)


def test_one_folder_that_cannot_be_written_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    first, second, third = three()
    settled = recovery.reconcile

    def careful(run: Run) -> str:
        if run.id == first.id:
            raise PermissionError(13, "Permission denied", str(run.lock))
        return settled(run)

    def begin(run: Run) -> bool:
        started.append(run.id)
        if run.id == second.id:
            raise RunError("The supervisor did not start.", "", "run")
        return True

    monkeypatch.setattr(recovery, "reconcile", careful)
    monkeypatch.setattr(queue, "start", begin)
    started.clear()
    with pytest.raises(RunError, match="did not start"):
        queue.advance()
    assert started[1:] == [second.id, third.id]


def test_resume_refuses_another_sequence() -> None:
    run = three()[0]
    sequence.begin(run.checkpoints, run.config)
    save(run.checkpoints, 5)
    end(run, "failed")
    with pytest.raises(RunError, match=r"max_length.*was 1024 and is 64"):
        queue.resume(run, {"data": {"max_length": 64}})
    assert run.state() == "failed"
    assert not run.changes()
    queue.resume(run, {"training": {"batch_size": 2, "accumulation": 4}})
    assert run.config.training.batch_size == 2


def test_extend_keeps_what_auto_came_to() -> None:
    run = queue.submit(ORDER.with_changes(training={"accumulation": "auto"}))
    run.append("plan", steps=10, epochs=3, effective_batch=8)
    end(run, "finished")
    goal.extend(run, 1)
    training = Run(run.folder).config.training
    assert (training.epochs, training.accumulation) == (4, 2)


def test_extend_by_steps() -> None:
    run = queue.submit(ORDER.with_changes(training={"max_steps": 10}))
    run.append("plan", steps=10, epochs=3)
    run.append("step", step=10, epoch=2.0, loss=1.0)
    end(run, "finished")
    goal.extend(run, 1)
    assert Run(run.folder).config.training.max_steps == 15
    with pytest.raises(RunError):
        goal.extend(run, 0)


def test_lost_ones_are_written_down() -> None:
    run = three()[0]
    run.append("phase", name="training", attempt=1)
    queue.advance()
    assert run.events()[-1]["state"] == "lost"


# -- devices


def cards(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    found = [Device(kind="cuda", index=index, name="card", memory=1, free=1) for index in range(count)]
    monkeypatch.setattr(claim, "devices", lambda: found)


def test_one_run_a_device(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, 2)
    first, second = claim.take_devices(1), claim.take_devices(1)
    assert first is not None
    assert second is not None
    assert [first[0][0].id, second[0][0].id] == ["cuda:0", "cuda:1"]
    assert claim.take_devices(1) is None
    first[0][1].release()
    assert claim.take_devices(2) is None
    again = claim.take_devices(1)
    assert again is not None
    assert again[0][0].id == "cuda:0"


def test_devices_are_named_as_the_driver_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [claim.device_key(device) for device in claim.devices()] == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    assert [claim.device_key(device) for device in claim.devices()] == ["3", "1"]
    held = Lock(home / "locks" / "device-3")
    assert held.acquire()
    taken = claim.take_devices(1)
    assert taken is not None
    assert claim.device_key(taken[0][0]) == "1"
    held.release()


@pytest.mark.parametrize("how", [False, True, "pause"])
def test_a_supervisor_that_died_behind_the_end_line_is_made_up_for(how: bool | str) -> None:
    run = three()[0]
    save(run.checkpoints, 5)
    end(run, "stopped")
    run.request_stop(how)
    run.allocate_reserve()
    queue.advance()
    assert run.state() == ("queued" if how == "pause" else "stopped")
    assert queue.on_hold(run) == (how == "pause")
    assert run.checkpoints.exists() == (how is not True)
    assert not recovery.unfinished(run)
    assert not list(run.folder.glob(".*"))


def test_the_page_watches(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen, enough = [], threading.Event()

    def once() -> None:
        seen.append(1)
        if len(seen) > 2:
            enough.set()
            threading.Event().wait()
        raise RunError("The supervisor did not start.")

    monkeypatch.setattr(queue, "advance", once)
    queue.watch(every=0.01)
    assert enough.wait(10)
