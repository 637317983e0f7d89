"""The card of influential rows: what the page is told, what it may order, what is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from studio import influence as core
from studio import side_job, side_process
from studio.errors import OrderError
from studio.run import Run
from studio.ui import influence
from tests.faults import stage
from tests.ui.fakes import FakeRun

RUN = "2026-11-22-1200-mine"


@pytest.fixture(autouse=True)
def finished(home: Any) -> Run:
    run = FakeRun(RUN, steps=20)
    run.start(alive=False)
    run.train().finish().influenced()
    return Run(run.folder)


def test_results_come_once_and_short(finished: Run) -> None:
    told = orjson.loads(influence.influences({"id": RUN}).body)
    assert told["state"] == "done"
    assert [len(told["results"][name]) for name in influence.LISTS] == [10, 4, 3]
    assert "results" not in orjson.loads(influence.influences({"id": RUN, "mark": told["mark"]}).body)
    core.job(finished).tell("gradients of the training rows", 3, 9, at_once=True)
    assert orjson.loads(influence.influences({"id": RUN}).body)["state"] == "cut off"


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [(3, None), ([], None), ([{"role": "tool", "content": "x"}], None), (None, "x"), ("x", 3), ("x" * 100_001, None)],
)
def test_odd_questions_are_refused(prompt: Any, answer: Any) -> None:
    with pytest.raises(OrderError):
        influence.find_influence(RUN, prompt, answer)


@pytest.mark.parametrize("odd", ["[]", '{"at": 1}', '{"at": 1, "rows": 3, "against": [], "harmful": []}'])
def test_results_of_another_shape_are_told(finished: Run, odd: str) -> None:
    (finished.folder / core.KIND / "results.json").write_text(odd)
    told = orjson.loads(influence.influences({"id": RUN}).body)
    assert told["state"] == "failed"
    assert "results" not in told
    assert told["error"]["message"] == "influence/results.json does not hold what this job writes."


def test_a_job_refused_before_its_lock_tells_why_at_once(finished: Run) -> None:
    task = side_job.FolderJob(finished.folder / "asked", "2026-01-01-0000-nobody", "It")
    side_process.begin(task, "influence", {"prompt": None, "answer": None}, device=False)
    stage.until(lambda: task.status()["state"] != "going", "the refusal", side_job.STARTING - 5)
    assert task.status()["state"] == "failed"
    assert "nobody" in task.status()["error"]["message"]
