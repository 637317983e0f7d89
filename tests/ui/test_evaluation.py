"""The evaluation card and the leaderboard: what the page is told and may fetch, from run folders made up for it."""

from __future__ import annotations

import csv
import errno
import io
from typing import Any

import orjson
import pytest

from studio import evaluating, json_text, side_job, side_process
from studio import run as runs
from studio.errors import StudioError
from studio.events import Lock
from studio.home import subfolder
from studio.run import Run
from studio.runs import evaluations
from studio.ui import evaluation
from tests.ui.fakes import FakeRun

RUN, OTHER = "2026-11-22-1200-mine", "2026-11-22-1300-other"


@pytest.fixture(autouse=True)
def finished(home: Any) -> None:
    for name in (RUN, OTHER):
        run = FakeRun(name, steps=20, seed=len(name))
        run.start(alive=False)
        run.train().finish()
        if name == RUN:
            run.evaluated(rows=12)


def asked(**ask: Any) -> dict[str, Any]:
    return orjson.loads(evaluation.evaluation({"id": RUN, **ask}).body)


def test_results_come_once_and_only_when_they_changed() -> None:
    first = asked()
    assert first["state"] == "done"
    assert first["results"]["verdict"]["state"] == "better"
    assert len(first["results"]["table"]) == first["results"]["of"] == 12
    assert "results" not in asked(mark=first["mark"])


def test_a_run_without_an_evaluation_tells_its_held_out_figures() -> None:
    told = orjson.loads(evaluation.evaluation({"id": OTHER}).body)
    assert told["state"] == "none"
    assert told["metrics"]["base"]["token_accuracy"] == 0.41
    assert told["metrics"]["tuned"]["loss"] < told["metrics"]["base"]["loss"]


def test_rows_stream_while_it_goes_on() -> None:
    run = Run(subfolder("runs") / OTHER)
    place, lock = evaluations.folder(run), Lock(evaluations.folder(run) / "lock")
    place.mkdir()
    (place / "rows.jsonl").write_text('{"row": 1}\n{"row": 2}\n{"row": 3')
    (place / "progress.json").write_text('{"doing": "answers of base", "done": 5, "of": 40}')
    assert lock.acquire()
    told = orjson.loads(evaluation.evaluation({"id": OTHER, "rows": 1}).body)
    assert (told["state"], told["doing"], told["done"], told["rows"]) == ("going", "answers of base", 5, [{"row": 2}])
    evaluation.stop_evaluation(OTHER)
    assert evaluating.job(run).stop_requested()
    lock.release()
    assert orjson.loads(evaluation.evaluation({"id": OTHER}).body)["state"] == "cut off"


def test_rows_of_answers_with_every_kind_of_line_end_stream() -> None:
    run = Run(subfolder("runs") / OTHER)
    rows, lock = evaluations.folder(run) / "rows.jsonl", Lock(evaluations.folder(run) / "lock")
    rows.parent.mkdir()
    for number in (1, 2):
        json_text.append_line(rows, {"row": number, "tuned": "a\u2028b\x85c"})
    assert lock.acquire()
    assert [row["row"] for row in asked(id=OTHER)["rows"]] == [1, 2]
    lock.release()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "rows.jsonl"), "The disk is full"),
        (MemoryError(), "not enough memory"),
        (KeyError("loss"), "The studio made a mistake: KeyError"),
    ],
)
def test_whatever_ends_a_job_beside_a_run_is_told(error: Exception, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the page, and of an evaluation that the order asks for in the run, whose supervisor goes on to the queue."""

    def fail(*_: Any) -> None:
        raise error

    run = Run(subfolder("runs") / RUN)
    monkeypatch.setattr(evaluating, "_evaluate", fail)
    with pytest.raises(type(error)):
        evaluating.evaluate(run)
    seen = asked()
    assert seen["state"] == "failed"
    assert told in seen["error"]["message"]
    evaluating.after_training(run)
    assert told in run.events()[-1]["text"]


@pytest.mark.parametrize("ended", [SystemExit(143), OSError(errno.ENOSPC, "No space left on device")])
def test_a_job_that_cannot_write_why_it_ended_was_cut_off(
    ended: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked to end from outside, or not even the reason has room: the old results are not told as its own."""

    def end(*given: Any) -> None:
        given[-1].tell("answers of base", at_once=True)
        monkeypatch.setattr(side_job, "write_atomic", fail)
        fail()

    def fail(*_: Any) -> None:
        raise ended

    monkeypatch.setattr(evaluating, "_evaluate", end)
    with pytest.raises(type(ended)):
        evaluating.evaluate(Run(subfolder("runs") / RUN))
    assert asked()["state"] == "cut off"


def test_a_stopped_run_can_be_evaluated_and_none_is_deleted_meanwhile() -> None:
    run = Run(subfolder("runs") / OTHER)
    run.request_stop()  # the file stays after the run's end
    assert not evaluating.job(run).stop_requested()
    lock = Lock(evaluations.folder(run) / "lock")
    assert lock.acquire()
    with pytest.raises(StudioError, match="being evaluated"):
        runs.delete(run)
    lock.release()
    runs.delete(run)
    assert not run.folder.exists()


def test_files_hold_the_table() -> None:
    text = evaluation.evaluation_file({"id": RUN, "kind": "csv"}).body.decode()
    rows = list(csv.DictReader(io.StringIO(text[1:])))
    assert len(rows) == 12
    assert rows[0]["tuned_exact_match"] == "1.0"
    everything = orjson.loads(evaluation.evaluation_file({"id": RUN, "kind": "json"}).body)
    assert everything["tuned"]["exact_match"] == pytest.approx(8 / 12)


@pytest.mark.parametrize(("name", "kind"), [(RUN, "../config.yaml"), (RUN, None), (OTHER, "csv"), ("../" + RUN, "csv")])
def test_no_other_file_is_given(name: str, kind: Any) -> None:
    with pytest.raises(StudioError):
        evaluation.evaluation_file({"id": name, "kind": kind})


@pytest.mark.parametrize("settings", [{"rows": -1}, {"regex": "("}, {"path": "/etc/passwd"}, 7])
def test_settings_are_checked_before_anything_starts(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_process.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(StudioError):
        evaluation.evaluate(RUN, settings)


def test_leaders_of_the_newest_data_set() -> None:
    told = orjson.loads(evaluation.leaders({}).body)
    assert [(one["name"], one["runs"]) for one in told["groups"]] == [("sample", 2)]
    assert {row["run"] for row in told["rows"]} == {RUN, OTHER}
    assert next(row for row in told["rows"] if row["run"] == RUN)["metric"] == "exact_match"
    assert orjson.loads(evaluation.leaders({"kind": "nothing"}).body)["rows"] == []
