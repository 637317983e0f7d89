"""Method × (train, chat, export of the adapter, merge or a clear refusal), on the tiny model, from the registry."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.errors import ExportError
from studio.export import folders as export
from studio.methods import METHODS
from studio.run import Run
from studio.talk import chat
from studio.worker import export as exporter
from tests.worker.carrying import carry, order, rows

QUESTION = [{"role": "user", "content": "Say the number 3."}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[dict[str, Run]]:
    """A finished run of every method in one home, and no server left behind."""
    folder = tmp_path_factory.mktemp("matrix")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(folder))
        patch.setenv("STUDIO_CHAT_THREADS", "1")
        data = rows(folder / "rows.json")
        made = {
            name: order(
                tiny_model,
                data,
                f"method.name={name}",
                "training.max_steps=4",
                f"training.learning_rate={min(1, 50 * method.learning_rate)}",
            )
            for name, method in METHODS.items()
        }  # far too high a rate: four steps shall show
        for run in made.values():
            carry(run)
        yield made
        chat.end()
    assert os.environ.get("STUDIO_HOME") != str(folder)


@pytest.mark.parametrize("name", METHODS)
def test_trained(trained: dict[str, Run], name: str) -> None:
    assert trained[name].state() == "finished"
    assert (trained[name].result / "manifest.json").is_file()


@pytest.mark.parametrize("name", METHODS)
def test_chat(trained: dict[str, Run], name: str) -> None:
    """All results stand in one server beside each other and beside their base; each answers with its own words, twice
    the same.
    """
    server = chat.server()
    server.load([trained[name].id, f"base:{trained[name].id}"])

    def answer(model: str) -> str:
        return "".join(part.text for part in server.stream(model, QUESTION, temperature=0, max_tokens=16))

    tuned, base = answer(trained[name].id), answer(f"base:{trained[name].id}")
    assert tuned
    assert tuned != base, "the result is what answers"
    assert answer(trained[name].id) == tuned
    assert answer(f"base:{trained[name].id}") == base, "the base is untouched by what stands beside it"


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.adapter])
def test_export_of_the_adapter(trained: dict[str, Run], name: str, tmp_path: Path) -> None:
    out = Path(export.export(trained[name].id, "adapter", tmp_path / "adapter.zip", proven=False)["path"])
    names = {Path(file).name for file in zipfile.ZipFile(out).namelist()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names


@pytest.mark.parametrize("name", METHODS)
def test_merged_or_refused(trained: dict[str, Run], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA's by the exporter's process, the others' by the same lines inside this one."""
    out = tmp_path / "merged"
    if name != "lora":
        monkeypatch.setattr(export, "run_worker", lambda words, tell: exporter.main(words[1], words[2], Path(words[3])))
    if METHODS[name].mergeable or not METHODS[name].adapter:
        assert (Path(export.export(trained[name].id, "merged", out, proven=False)["path"]) / "config.json").is_file()
        return
    with pytest.raises(ExportError, match="cannot be merged"):
        export.export(trained[name].id, "merged", out, proven=False)
    assert not out.exists()
