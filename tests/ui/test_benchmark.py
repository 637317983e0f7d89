"""The card of benchmarks: who may begin one, with which files, and what a page is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from studio import benchmark, side_process
from studio.errors import StudioError
from studio.evaluation import harness
from studio.export import card, report
from studio.home import PROJECT, subfolder
from studio.run import Run
from studio.ui import benchmark as page
from studio.ui import rights, who
from studio.ui.who import OWNER, VISITOR, WATCHER, Requester
from tests.ui.fakes import FakeRun

RUN = "2026-11-22-1200-mine"
EXAMPLE = PROJECT / "docs" / "benchmarks" / "capitals.yaml"


@pytest.fixture(autouse=True)
def run(home: Path) -> Run:
    fake = FakeRun(RUN, steps=20)
    fake.start(alive=False)
    fake.train().finish().benchmarked()
    return Run(fake.folder)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requests of jobs that would have begun."""
    requests: list[dict[str, Any]] = []
    monkeypatch.setattr(benchmark.reference, "resolve", lambda name: None)
    monkeypatch.setattr(side_process, "begin", lambda job, command, request: requests.append(request))
    return requests


def test_only_the_owner_begins_one() -> None:
    for job in (page.start_benchmark, page.stop_benchmark):
        assert not any(rights.allows(job, role) for role in (WATCHER, VISITOR))
        assert rights.allows(job, OWNER)
    assert rights.allows(page.benchmarks, VISITOR)


def test_a_file_is_the_owners_and_on_a_guarded_page_an_upload(started: list[dict[str, Any]]) -> None:
    settings = {"task": str(EXAMPLE), "limit": 3}
    with who.acting_as(Requester(OWNER, guarded=False)):
        assert page.start_benchmark(RUN, settings)["functions"] == []
    assert started[0]["benchmark"]["task"] == str(EXAMPLE)
    with who.acting_as(Requester(OWNER, guarded=True)):
        with pytest.raises(StudioError, match="must lie among the uploads"):
            page.start_benchmark(RUN, settings)
        for name in ("capitals.yaml", "capitals.jsonl"):
            shutil.copy(EXAMPLE.with_name(name), subfolder("uploads") / name)
        page.start_benchmark(RUN, settings | {"task": str(subfolder("uploads") / "capitals.yaml")})
    assert len(started) == 2


def test_functions_of_a_file_are_told_before_it_runs(started: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    file = tmp_path / "mine.yaml"
    text = "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: rows.jsonl}\nprocess_docs: !function a.b\n"
    file.write_text(text)
    assert page.start_benchmark(RUN, {"task": str(file)})["functions"] == ["a.b"]


@pytest.mark.parametrize("settings", [{}, {"task": "x", "limit": -1}, {"task": "x.yaml"}, {"task": "arc_easy"}, 7, []])
def test_settings_are_checked_before_anything_starts(settings: Any, started: list[dict[str, Any]]) -> None:
    with pytest.raises(StudioError):
        page.start_benchmark(RUN, settings)
    assert not started


def test_what_a_page_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "installed", lambda: False)
    answer = orjson.loads(page.benchmarks({"id": RUN}).body)
    assert answer["state"] == "done"
    assert answer["install"] == harness.INSTALL
    assert [one["name"] for one in answer["results"]["results"]] == ["arc_easy", "opposites.yaml"]
    assert b"/data/opposites" not in page.benchmarks({"id": RUN}).body, "no path of this computer"


def test_report_and_model_card_have_the_figures(run: Run) -> None:
    texts = card.card(run), report.report(run)
    for text in texts:
        assert "Benchmarks" in text
        assert "0.4860 ± 0.0215" in text
        assert "/data/opposites" not in text
    assert "(500 questions) | acc |" in texts[0]
