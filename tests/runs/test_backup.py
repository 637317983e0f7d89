"""Runs copied to a private repository and fetched again on an empty disk; the Hub is a folder here."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from studio import queue
from studio.run import Run, runs
from studio.runs import backup, checkpoints
from tests.faults import stage


class Hub:
    """What HfApi is asked for here, on a folder."""

    folder = Path("nowhere")
    made: list[tuple[str, bool]] = []

    def __init__(self, token: str | None = None):
        assert token == "hf_x"

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
        self.made.append((name, private))

    def repo_exists(self, name: str) -> bool:
        return self.folder.exists()

    def upload_folder(
        self, repo_id: str, folder_path: str, path_in_repo: str, delete_patterns: list[str], **_: Any
    ) -> None:
        there = self.folder / path_in_repo
        for pattern in delete_patterns:
            for file in [
                path
                for path in there.rglob("*")
                if path.is_file() and fnmatch.fnmatch(str(path.relative_to(there)), pattern)
            ]:
                file.unlink()
        shutil.copytree(folder_path, there, dirs_exist_ok=True)

    def list_repo_files(self, name: str) -> list[str]:
        return [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()]

    def snapshot_download(self, name: str, local_dir: Path, allow_patterns: str) -> None:
        for file in self.list_repo_files(name):
            if fnmatch.fnmatch(file, allow_patterns):
                (Path(local_dir) / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / file, Path(local_dir) / file)


@pytest.fixture
def hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    monkeypatch.setattr(Hub, "folder", tmp_path / "hub")
    monkeypatch.setattr(Hub, "made", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setenv("STUDIO_BACKUP", "me/copies")
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    yield Hub
    stage.clear()


def cut_off(run: Run) -> None:
    """The diary as it was when the disk went: no end yet."""
    lines = run.events_file.read_text().splitlines(keepends=True)
    end = next(place for place, line in enumerate(lines) if '"kind":"end"' in line.replace(" ", ""))
    run.events_file.write_text("".join(lines[:end]))
    shutil.rmtree(run.result, ignore_errors=True)


def test_a_run_comes_back_and_goes_on(hub: type[Hub], home: Path) -> None:
    run = stage.finished_run()
    cut_off(run)
    newest = checkpoints.newest(run.checkpoints)
    assert newest is not None
    assert backup.copy(run)
    assert hub.made == [("me/copies", True)], "private"
    assert not backup.copy(run), "nothing has changed since"
    there = hub.folder / "runs" / run.id
    assert sorted(path.name for path in (there / "checkpoints").iterdir()) == [newest.name], "only the newest one"
    shutil.rmtree(home / "runs")
    with stage.surroundings(**stage.fake()):
        assert [found.id for found in backup.fetch()] == [run.id]
        stage.until(lambda: stage.ended(run), "the run's end")
    assert run.state() == "finished"
    assert [event["from_step"] for event in run.events() if event.get("from_step")], "from its checkpoint"
    assert backup.fetch() == []


def test_a_finished_run_comes_back_as_it_was(hub: type[Hub], home: Path) -> None:
    run = stage.finished_run()
    run.result.mkdir(exist_ok=True)
    (run.result / "adapter_model.safetensors").write_bytes(b"weights")
    assert backup.ensure_copied(run)
    assert backup.ensure_copied(run)
    shutil.rmtree(home / "runs")
    backup.fetch()
    assert [one.state() for one in runs()] == ["finished"]
    assert sorted(os.listdir(run.result)) == sorted(os.listdir(hub.folder / "runs" / run.id / run.result.name))


def test_without_a_token_nothing_is_sent(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert backup.watch() is None
    assert not backup.ensure_copied(queue.create(stage.order()))
    assert backup.fetch() == []
