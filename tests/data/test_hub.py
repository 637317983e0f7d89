"""Hub data sets, from a local stand-in of the Hub: a split by its name, the default split, and what is refused in
words.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studio.home import PROJECT
from tests import fake_hub
from tests.data.fixtures import ALPACA, as_parquet

SCRIPT = """
import json, sys
from studio import data
from studio.errors import DataError
for source in sys.argv[1:]:
    try:
        found = data.read(source)
        print(json.dumps([found.format, found.rows, found.conversations[0]["messages"][1]["content"]]))
    except DataError as error:
        print(json.dumps([error.message, error.hint]))
"""


def read(endpoint: str, folder: Path, *sources: str) -> list[Any]:
    """What a process of its own reads from these sources: the Hub's address is settled when its library is imported."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN")
    }
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "STUDIO_HOME": str(folder)}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *sources],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_data_set_of_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    repo = tmp_path / "repo"
    (repo / "data").mkdir(parents=True)
    (repo / "data" / "train-00000-of-00001.parquet").write_bytes(as_parquet(ALPACA))
    (repo / "data" / "test-00000-of-00001.parquet").write_bytes(as_parquet(ALPACA[1:]))
    (repo / "README.md").write_text("A few rows.\n")
    with fake_hub.serving({"datasets/owner/rows": repo}) as (endpoint, seen):
        train, test, again, split, gone = read(
            endpoint, tmp_path, "owner/rows", "owner/rows:test", "owner/rows", "owner/rows:dev", "owner/none"
        )
        assert train == again == ["alpaca", 3, ALPACA[0]["output"]]
        assert test == ["alpaca", 2, ALPACA[1]["output"]]
        assert "dev" in split[0]
        assert "the split" in split[1]
        assert "'owner/none' is no file here" in gone[0]
        fetched = [
            request
            for request in seen
            if request.startswith("GET") and request.endswith("train-00000-of-00001.parquet")
        ]
        assert len(fetched) == 1, "fetched once, then taken from the uploads"


def test_long_names_and_newer_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that agree in their first letters are different files; a newer revision is fetched, once it is asked for
    again.
    """
    from studio.data import hub

    monkeypatch.setenv("STUDIO_HOME", str(tmp_path))
    name = "an-owner-with-a-rather-long-name/a-data-set-with-a-name-that-is-longer-still"
    assert hub._local_file(f"{name}:train") != hub._local_file(f"{name}:test")
    kept, asked = hub._local_file("owner/rows"), []
    kept.write_bytes(b"old")
    kept.with_suffix(".revision").write_text("one")
    monkeypatch.setattr("studio.base.hub.unreachable", lambda: None)
    monkeypatch.setattr(hub, "_revision", lambda repo, noted=None: asked.append(repo) or "two")

    class Fetched:
        def to_parquet(self, path: str) -> None:
            Path(path).write_bytes(b"new")

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Fetched())
    assert hub.path_of("owner/rows").read_bytes() == b"new"
    assert hub.path_of("owner/rows").read_bytes() == b"new"
    assert (kept.with_suffix(".revision").read_text(), asked) == ("two", ["owner/rows"] * 2)
