"""Which files are a model's weights: as transformers chooses them, and what is missing is named at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from studio import model
from studio.base import shards, source
from studio.base.shards import INDEX
from studio.base.source import ModelOrder
from studio.errors import ModelError


@pytest.fixture
def sharded(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model in two shards with an index."""
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(tiny_model / "model.safetensors")
    names, where = sorted(tensors), {}
    for place, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{place}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def test_a_second_copy_of_the_weights_is_not_counted(sharded: Path, tiny_model: Path) -> None:
    """Mistral's own format lies beside the shards under other names of tensors."""
    save_file(
        {f"own.{name}": value for name, value in load_file(tiny_model / "model.safetensors").items()},
        sharded / "consolidated.safetensors",
    )
    assert model.facts(sharded).parameters == model.facts(tiny_model).parameters


def test_a_missing_shard_is_named_at_once(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    for ask in (model.facts_of, source.check, source.fetch):
        with pytest.raises(ModelError, match="lacks 1 of the 2 files .* model-00002-of-00002.safetensors"):
            ask(ModelOrder(source=str(sharded)))


def test_an_index_without_any_of_its_shards_is_no_model_to_be_estimated(sharded: Path) -> None:
    for file in sharded.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelError, match="lacks 2 of the 2"):
        model.facts_of(ModelOrder(source=str(sharded)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pytorch_model.bin", "a pickle file"),
        ("consolidated.safetensors", "neither model.safetensors nor"),
        ("weights.safetensors", "neither model.safetensors nor"),
    ],
)
def test_what_transformers_would_not_load_is_refused(name: str, said: str, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    shutil.copy(tiny_model / "model.safetensors", tmp_path / name)
    for ask in (model.facts_of, source.check):
        with pytest.raises(ModelError, match=said):
            ask(ModelOrder(source=str(tmp_path)))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-1], "is not whole: it has"),
        (lambda content: content[:100], "is not whole: it has 100 of"),
        (lambda _: b"", "is not whole: it has 0 of 8"),
        (lambda content: content + b"\0", "is not whole: it has"),
        (
            lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345678\n",
            "is a Git LFS pointer",
        ),
    ],
)
def test_a_shard_that_is_not_whole_is_named_before_the_model_is_loaded(
    damage: Callable[[bytes], bytes], said: str, sharded: Path
) -> None:
    """A download that broke off was estimated to fit, and failed behind "loading model"."""
    file = sharded / "model-00002-of-00002.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    for ask in (model.facts_of, source.check, source.fetch):
        with pytest.raises(ModelError, match=f"model-00002-of-00002.safetensors {said}"):
            ask(ModelOrder(source=str(sharded)))


def test_a_link_to_nowhere_is_told_as_one(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    for ask in (model.facts_of, source.check):
        with pytest.raises(ModelError, match="is a link to .*gone, which is not there"):
            ask(ModelOrder(source=str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"pad_token_id": 364}, "pad_token_id 364 and vocab_size 364"), ({"vocab_size": 400}, "vocab_size 400, .* 364")],
)
def test_a_table_that_does_not_fit_config_json_is_refused(
    change: dict[str, int], said: str, tiny_model: Path, tmp_path: Path
) -> None:
    """The run ended in torch's AssertionError for the padding, and behind "loading model" for the rows."""
    folder = tmp_path / "changed"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=said):
        model.facts(folder)


def test_a_config_alone_is_still_estimated(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    assert model.facts_of(ModelOrder(source=str(tmp_path))).parameters == model.facts(tiny_model).parameters


def test_weights_are_known_again_wherever_they_lie(
    sharded: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file or two make no difference; one changed number in the middle of a tensor does, also where samples alone
    are read.
    """
    assert shards.fingerprint(sharded) == shards.fingerprint(tiny_model)
    changed = tmp_path / "changed"
    shutil.copytree(tiny_model, changed)
    tensors = load_file(changed / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][32, 16] += 1
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})
    assert shards.fingerprint(changed) != shards.fingerprint(tiny_model)
    monkeypatch.setattr(shards, "READ_WHOLE", 0)
    shards._fingerprint.cache_clear()
    assert shards.fingerprint(changed) != shards.fingerprint(tiny_model)
    assert shards.fingerprint(sharded) == shards.fingerprint(tiny_model)
    shards._fingerprint.cache_clear()
