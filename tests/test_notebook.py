"""studio.ipynb, executed from top to bottom by a kernel of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from studio.home import PROJECT


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(
    home: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tiny model: the page comes with its password, the terminal trains, chats and exports."""
    _run(
        tmp_path,
        monkeypatch,
        ["--set", f"model={tiny_model}", "--set", "training.max_steps=2", "--set", "data.max_length=400"]
        + ["--set", "training.threads=1"],
    )


@pytest.mark.rare
@pytest.mark.timeout(3600)
def test_it_runs_on_the_starter(with_starter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(tmp_path, monkeypatch, [])


def _run(folder: Path, monkeypatch: pytest.MonkeyPatch, train: list[str]) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]))
    notebook: Any = nbformat.read(PROJECT / "studio.ipynb", as_version=4)
    nbformat.validate(notebook)
    (chosen,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert 'PAGE = ["--share"]' in chosen.source
    # what others can reach asks for a login, as --share does
    chosen.source = f'SOURCE, PAGE, TRAIN = "", ["--host", "0.0.0.0"], {train!r}'
    NotebookClient(
        notebook, timeout=1500, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "password" in said
    assert "http" in said
    assert (folder / "result.zip").stat().st_size > 1000
