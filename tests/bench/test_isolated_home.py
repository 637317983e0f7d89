"""A bench's orders stand in a home of its own: killed in the middle, it leaves nothing that the next page would train
unbidden.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from studio import queue, run
from studio.__main__ import main
from studio.commands.bench import BENCHES, load
from studio.config import build
from studio.home import PROJECT, subfolder
from tests.bench import train as bench
from tests.bench.isolated_home import isolated_home

ORDER = build({"data": {"train": "sample"}})


def test_what_a_bench_orders_is_in_no_other_home(home: Path) -> None:
    (subfolder("models") / "kept").mkdir()
    with isolated_home() as place:
        assert run.create(ORDER).folder.is_relative_to(place)
        assert (place / "models" / "kept").is_dir()
    assert os.environ["STUDIO_HOME"] == str(home)
    assert not place.exists()
    assert (home / "models" / "kept").is_dir(), "links were removed, not followed"
    assert run.runs() == []


def test_a_killed_bench_leaves_nothing_in_the_queue(home: Path) -> None:
    code = (
        "import time; from studio import run; from tests.bench.isolated_home import isolated_home; from "
        "studio.config import build\n"
        "with isolated_home():\n  run.create(build({'data': {'train': 'sample'}})); print('ordered', flush=True); "
        "time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ordered\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert queue.waiting() == []
    assert queue.advance() is None


def test_bench_train_orders_apart(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def stop(words: list[str], **_: object) -> None:
        seen.extend(one.folder for one in run.runs())
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.subprocess, "Popen", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.one("studio", ORDER)
    assert len(seen) == 1
    assert not seen[0].is_relative_to(home)
    assert run.runs() == []


def test_without_a_checkout_the_benches_say_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As installed from a wheel: no tests/ beside the package."""
    monkeypatch.setattr("studio.commands.bench.PROJECT", tmp_path)
    for name in BENCHES:
        assert main(["bench", name, "--json"]) == 2
        told = json.loads(capsys.readouterr().out)["error"]
        assert f"bench {name}" in told["message"]
        assert "git clone" in told["hint"]


def test_the_benches_are_told_of_as_their_modules_say() -> None:
    for name, about in BENCHES.items():
        assert (load(name).__doc__ or "").splitlines()[0] == f"bench {name}: {about}"
