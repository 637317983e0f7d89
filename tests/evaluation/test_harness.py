"""A task's file as it is read before anything runs, what is refused at once, and base and tuned beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from studio import benchmark
from studio.errors import StudioError
from studio.evaluation import harness
from studio.home import PROJECT

TASK = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"question": "?"}\n')
    return tmp_path


def checked(folder: Path, text: str) -> list[str]:
    file = folder / "mine.yaml"
    file.write_text(text)
    return harness.check(harness.order_of({"task": str(file)}))


def test_the_examples_are_tasks_without_functions() -> None:
    for name in ("capitals", "opposites"):
        assert harness.check(harness.order_of({"task": str(PROJECT / f"docs/benchmarks/{name}.yaml")})) == []


def test_functions_are_named_and_not_run(folder: Path) -> None:
    (folder / "code.py").write_text("raise SystemExit('ran')\n")
    (folder / "shared.yaml").write_text("process_docs: !function code.docs\n")
    text = f"include: shared.yaml\n{TASK}doc_to_text: !function code.text\n"
    assert checked(folder, text) == ["code.docs", "code.text"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", "is no task"),
        ("group: mine\ntask: [a, b]\n", "not the file of one task"),
        ("dataset_path: json\n", "not the file of one task"),
        (TASK.replace("rows.jsonl", "gone.jsonl"), "names gone.jsonl, which is not there"),
        (TASK.replace("{data_files", "{trust_remote_code: true, data_files"), "sets trust_remote_code"),
        (TASK + "unsafe_code: true\n", "sets unsafe_code"),
        (TASK + "metric_list: [{metric: x, hf_evaluate: true}]\n", "sets hf_evaluate"),
        (TASK + "include: mine.yaml\n", "includes itself"),
        (TASK + "include: other.yaml\n", "cannot be read"),
        (TASK + "x: !!python/object/apply:os.system [ls]\n", "is not YAML"),
        ("task: mine\ndataset_path: somebody/questions\n", "does not answer"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(folder: Path, text: str, words: str, home: Path) -> None:
    with pytest.raises(StudioError, match=words):
        checked(folder, text)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task": "arc_easy"}, "arc_easy has its questions on the Hub, which does not answer"),
        ({"task": "../x"}, "no name of a task"),
        ({"task": "nowhere.yaml"}, "cannot be read"),
        ({"task": ""}, "benchmark.task"),
        ({"task": "arc_easy", "limit": 0}, "benchmark.limit"),
        ({"task": "arc_easy", "code": True}, "benchmark.code"),
        ("arc_easy", "benchmark"),
    ],
)
def test_orders_are_refused_in_words(
    settings: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "none"))
    with pytest.raises(StudioError, match=words):
        harness.check(harness.order_of(settings))


def test_without_the_network_data_of_earlier_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    (tmp_path / "json").mkdir()
    with pytest.raises(StudioError, match="does not answer"):
        harness.check(harness.order_of({"task": "arc_easy"}))
    (tmp_path / "somebody___questions").mkdir()
    assert harness.check(harness.order_of({"task": "arc_easy"})) == []


def test_what_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "installed", lambda: False)
    with pytest.raises(StudioError) as refused:
        harness.check(harness.order_of({"task": "arc_easy"}))
    assert "pip install" in refused.value.hint
    wanted = (PROJECT / "pyproject.toml").read_text()
    assert harness.INSTALL.split('"')[1] in wanted, "as the extra has it"


def row(value: float, stderr: float | None, each: list[float], higher: bool | None = True) -> dict[str, Any]:
    return {
        "task": "t", "metric": "acc", "filter": "none", "value": value, "stderr": stderr, "each": each,
        "higher_is_better": higher, "questions": len(each), "shots": 0, "version": 1,
    }  # fmt: skip


def test_differences_are_paired_and_have_a_verdict() -> None:
    """The interval against the bootstrap done by hand on the differences of single questions."""
    base, tuned = [0.0] * 30 + [1.0] * 10, [1.0] * 20 + [0.0] * 12 + [1.0] * 8
    [found] = benchmark.table([row(0.25, 0.07, base)], [row(0.7, 0.07, tuned)])
    changes = numpy.array(tuned) - numpy.array(base)
    draws = numpy.random.default_rng(1).choice(changes, (4000, 40)).mean(1)
    low, high = numpy.percentile(draws, [2.5, 97.5])
    assert found["difference"]["value"] == pytest.approx(changes.mean())
    assert found["difference"]["low"] == pytest.approx(low, abs=0.03)
    assert found["difference"]["high"] == pytest.approx(high, abs=0.03)
    assert found["verdict"] == "better"
    assert benchmark.table([row(0.25, 0.07, base, False)], [row(0.7, 0.07, tuned, False)])[0]["verdict"] == "worse"
    assert benchmark.table([row(0.25, 0.07, base)], [row(0.25, 0.07, base)])[0]["verdict"] == "same"
    [found] = benchmark.table([row(12.0, None, [])], [row(9.0, None, [])])
    assert (found["difference"], found["verdict"]) == ({"value": -3.0, "low": None, "high": None}, None)
    assert benchmark.cells(found) == ["t", "acc", "12.0000", "9.0000", "-3.0000"]
