"""The supervisor, with a trainer without torch. More of it in tests/faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio import config, process, queue, supervise
from studio.device import Device
from studio.events import Lock
from studio.run import create, summary
from studio.runs import attempt, claim, goal
from studio.runs.diagnosis import LOST
from tests.faults import processes, stage


@pytest.fixture(autouse=True)
def _clean(home: Path) -> Iterator[None]:
    yield
    stage.clear()


def test_a_run_from_order_to_result(home: Path) -> None:
    run = stage.finished_run()
    stage.check_fake(run)
    told = summary(run)
    assert (told["attempt"], told["steps"], told["trained"], told["saved"], told["cause"]) == (1, 12, True, True, None)
    assert run.log.read_text().startswith("──── attempt 1")
    assert "loading model" in run.log.read_text()
    assert not (run.folder / ".reserve").exists()


def test_paused_waits_and_goes_on_where_it_was(home: Path) -> None:
    with stage.surroundings(**stage.fake(pause=0.1)):
        run = queue.submit(stage.order())
        stage.until(lambda: len(stage.steps_told(run)) > 1, "two steps")
        queue.pause(run)
        stage.until(lambda: run.state() == "queued" and not run.alive(), "the pause")
        assert queue.on_hold(run)
        queue.advance()
        assert run.state() == "queued"
        queue.resume(run)
        stage.until(lambda: stage.ended(run), "the run's end")
    assert [event["from_step"] for event in run.events() if event.get("from_step")]
    stage.check_fake(run)


def test_extended_while_it_runs(home: Path) -> None:
    with stage.surroundings(**stage.fake(pause=0.1)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        goal.extend(run, 3)
        stage.until(lambda: stage.ended(run) and summary(run)["attempt"] == 2, "the second end")
    stage.check_fake(run, 24)
    assert [event["from_step"] for event in run.events() if event.get("from_step")] == [12]


def test_asked_while_it_runs(home: Path) -> None:
    with stage.surroundings(**stage.fake(pause=0.1)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        run.ask("evaluate")
        stage.until(lambda: stage.ended(run), "the run's end")
    assert any(event.get("text") == "asked to evaluate" for event in run.events())


def test_a_trainer_that_hangs_after_its_end_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "EXIT_GRACE", 0.5)
    monkeypatch.setattr(queue, "advance", lambda: None)
    for name, value in stage.fake(linger=300).items():
        monkeypatch.setenv(name, value)
    run = create(stage.order())
    assert supervise.supervise(run) == queue.UP
    stage.check_fake(run)


def test_a_fault_of_the_supervisor_does_not_undo_what_the_trainer_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(attempt.Attempt, "_write_end", fail)
    monkeypatch.setattr(queue, "advance", lambda: None)
    for name, value in stage.fake().items():
        monkeypatch.setenv(name, value)
    run = create(stage.order())
    supervise.supervise(run)
    assert run.state() == "finished"
    stage.check_fake(run)


def test_a_grandchild_does_not_outlive_the_run(home: Path) -> None:
    processes.stray_child()


def test_the_trainer_hears_signals_and_sees_its_device(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create(stage.order())
    cards = [
        (Device(kind="cuda", index=index, name="card", memory=1, free=1), Lock(home / str(index))) for index in (1, 2)
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    environment = attempt.Attempt(run, cards)._environment()
    assert environment["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert environment["STUDIO_ATTEMPT"] == "1"


def test_more_devices_than_there_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Device(kind="cuda", name="card", memory=1, free=1)
    monkeypatch.setattr(claim, "devices", lambda: [card])
    monkeypatch.setattr(queue, "advance", lambda: None)
    run = create(stage.order(training={"devices": 64}))
    assert supervise.supervise(run) == queue.UP
    told = summary(run)
    assert told["state"] == "failed"
    assert "64" in told["cause"]


@pytest.mark.parametrize("again", [False, True])
def test_only_one_supervises(home: Path, again: bool) -> None:
    run = create(stage.order())
    lock = Lock(run.lock) if again else claim.device_locks()[0]
    assert lock.acquire()
    assert supervise.supervise(run) == queue.BUSY
    lock.release()
    assert run.state() == "queued"
    assert not process.holders(run.lock)


def test_what_was_stopped_before_it_began_is_not_started(home: Path) -> None:
    run = create(stage.order())
    run.append("end", state="stopped", attempt=0)
    assert supervise.supervise(run) == queue.BUSY
    assert run.state() == "stopped"


def test_an_order_changed_by_hand_is_refused_in_words(home: Path) -> None:
    run = stage.crashed_at_step_10()
    file = run.folder / "config.yaml"
    file.write_text(config.parse(file.read_text()).with_changes(data={"max_length": 64}).to_yaml())
    run.append("phase", name="queued", attempt=1)
    with stage.surroundings(**stage.fake()):
        queue.advance()
        stage.until(lambda: stage.ended(run), "the run's end")
    told = summary(run)
    assert told["state"] == "failed"
    assert "data.max_length was 1024 and is 64" in told["cause"]
    assert "may change" in told["action"]


def test_the_last_word_when_all_is_lost(home: Path) -> None:
    with stage.surroundings(**stage.fake(pause=0.2)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        stage.kill(stage.supervisor(run))
        stage.until(lambda: run.state() == "lost", "the state")
        queue.advance()
    assert summary(run)["cause"] == LOST.message
    assert run.state_event()["reason"] == "lost"
    stage.until(lambda: not process.holders(run.trainer_lock), "the trainer's end", 5)
