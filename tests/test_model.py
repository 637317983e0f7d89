"""What a model is made of, from every place that can tell: headers, config.json alone, GGUF, the Hub's metadata, a meta
build.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from studio import child_process, model
from studio.base import families
from studio.base.source import ModelOrder
from studio.base.tensors import Tensor
from studio.errors import ModelError
from studio.home import PROJECT
from studio.memory.architecture import read_architecture
from tests import fake_hub

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}
PLAIN = [
    ("llama", {}),
    ("mistral", {}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 16}),
    ("gemma2", {"head_dim": 8}),
    ("phi3", {"pad_token_id": 0}),
    ("granite", {}),
    ("olmo2", {}),
    ("smollm3", {"pad_token_id": 0}),
]


@pytest.mark.parametrize(("kind", "more"), PLAIN)
def test_arithmetic_agrees_with_transformers(kind: str, more: dict) -> None:
    from studio.worker.model_config import shapes

    config = {"model_type": kind, "tie_word_embeddings": kind.startswith("gemma"), **TINY, **more}
    assert families.tensors(config) == {name: tuple(shape) for name, shape in shapes(dict(config)).items()}


def test_gpt2_agrees_with_transformers() -> None:
    from studio.worker.model_config import shapes

    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 100}
    assert families.tensors(config) == {name: tuple(shape) for name, shape in shapes(dict(config)).items()}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            "gemma3_text",
            {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2},
        ),  # so gemma-3-4b's text_config, but for the sizes
        ("gemma2", {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}),
        ("qwen3", {**TINY}),
        ("smollm3", {**TINY, "pad_token_id": 0}),
        ("mistral", {**TINY, "num_attention_heads": 8, "num_key_value_heads": None}),
        ("llama", {**TINY}),
        ("phi3", {**TINY, "pad_token_id": 0}),
    ],
)
def test_what_a_config_leaves_out(kind: str, told: dict) -> None:
    """transformers' own defaults, head tied or not among them."""
    from studio.worker.model_config import shapes

    config = {"model_type": kind, **{key: value for key, value in told.items() if value is not None}}
    assert families.tensors(families.completed(config)) == {
        name: tuple(shape) for name, shape in shapes(dict(config)).items()
    }


def test_towers_beside_the_language_model_are_no_layers(home: Path) -> None:
    config = {"model_type": "llama", **TINY}
    plain = model.from_config(config)
    tower = {"vision_tower.encoder.layers.0.self_attn.q_proj.weight": Tensor(dtype="F32", shape=(8, 8))}
    assert len(read_architecture(model.from_config(config, plain.tensors | tower)).layers) == 2


def test_headers_agree_with_config_alone(tiny_model: Path) -> None:
    whole = model.facts(tiny_model)
    alone = model.from_config(whole.config)
    assert {name: tensor.shape for name, tensor in whole.tensors.items()} == {
        name: tensor.shape for name, tensor in alone.tensors.items()
    }
    assert len(read_architecture(whole).layers) == 2
    assert [linear.role for linear in read_architecture(alone).layers[0].linears] == [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ]


def test_any_other_family_is_built_in_a_helper_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "stablelm", **TINY}
    first = model.from_config(config)
    assert first.num_hidden_layers == 2
    assert "model.layers.1.mlp.down_proj" in first.linears()
    monkeypatch.setattr(child_process.subprocess, "run", lambda *_, **__: pytest.fail("built a second time"))
    assert model.from_config(config) == first


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "nemotron_h"}, "'nemotron_h' does not say num_hidden_layers"),
        ({"model_type": "bloom", "num_hidden_layers": 2, "vocab_size": None}, "'bloom' does not say vocab_size"),
        ({"model_type": "mamba", "num_hidden_layers": 2, "num_attention_heads": None}, "a mamba .* no attention heads"),
    ],
)
def test_a_config_without_sizes_is_refused(config: dict, words: str, home: Path) -> None:
    with pytest.raises(ModelError, match=words):
        model.from_config({"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 10, **config}, {})


def test_sizes_listed_for_each_layer(home: Path) -> None:
    """Gemma 3n's widths; Nemotron-H's layers, which its config counts nowhere."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 10}
    widths = {"model_type": "gemma3n_text", "num_hidden_layers": 2, "intermediate_size": [64, 96]}
    assert model.from_config({**sizes, **widths}, {}).intermediate_size == 96
    kinds = {"model_type": "nemotron_h", "layers_block_type": ["mamba", "attention"]}
    assert model.from_config({**sizes, **kinds}, {}).num_hidden_layers == 2


def test_a_family_nobody_knows_is_refused(home: Path) -> None:
    with pytest.raises(ModelError, match="no_such_family"):
        model.from_config({"model_type": "no_such_family", **TINY})


def test_gguf_without_torch(tmp_path: Path, home: Path) -> None:
    from gguf import GGUFWriter

    file = tmp_path / "tiny.gguf"
    writer = GGUFWriter(str(file), "llama")
    for add, value in (
        (writer.add_block_count, 2),
        (writer.add_embedding_length, 32),
        (writer.add_feed_forward_length, 64),
        (writer.add_head_count, 4),
        (writer.add_head_count_kv, 2),
        (writer.add_context_length, 128),
    ):
        add(value)
    writer.add_tensor("token_embd.weight", numpy.zeros((100, 32), numpy.float16))
    writer.add_tensor("output.weight", numpy.zeros((100, 32), numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    made = model.facts_of(ModelOrder(source=str(file)))
    assert (
        made.num_hidden_layers,
        made.hidden_size,
        made.num_key_value_heads,
        made.vocab_size,
        made.tie_word_embeddings,
    ) == (2, 32, 2, 100, False)
    assert made.tensors["lm_head.weight"].shape == (100, 32)


ASK = """
import json
from studio import model
from studio.base import source
made = model.facts_of(source.ModelOrder(source="owner/tiny"))
print(json.dumps({name: tensor.shape for name, tensor in made.tensors.items()}))
"""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda shard: shard.unlink(), "owner/tiny has no model-00002-of-00002.safetensors"),
        (lambda shard: shard.write_bytes(b"version https://git-lfs"), "A weight file of owner/tiny is damaged"),
    ],
)
def test_a_repository_that_is_not_whole_is_told_as_that(
    damage: Callable[[Path], None], said: str, tiny_model: Path, tmp_path: Path, home: Path
) -> None:
    """A missing shard was told as a fault of the network, a damaged one as a bug of the studio."""
    folder = tmp_path / "repo"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")
    files = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    damage(folder / "model-00002-of-00002.safetensors")
    with fake_hub.serving({"owner/tiny": folder}) as (endpoint, _):
        hub = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", ASK], cwd=PROJECT, capture_output=True, text=True, timeout=120, env=os.environ | hub
        )
    assert f"ModelError: {said}" in done.stderr


def test_hub_metadata_downloads_no_weights(tiny_model: Path, tmp_path: Path, home: Path) -> None:
    with fake_hub.serving({"owner/tiny": tiny_model}) as (endpoint, seen):
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ
            | {
                "HF_ENDPOINT": endpoint,
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(tmp_path / "hf"),
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
            },
        )
    assert done.returncode == 0, done.stderr[-1500:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: tuple(shape) for name, shape in found.items()} == {
        name: item.shape for name, item in model.facts(tiny_model).tensors.items()
    }
    assert not list((tmp_path / "hf").rglob("*.safetensors"))


@pytest.mark.slow
def test_the_starter_is_known_before_it_is_fetched(
    home: Path, starter_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network, nothing prepared: the same facts as the prepared folder's, to the last shape."""
    found = model.facts_of(ModelOrder())
    assert found.parameters == 134_515_008
    assert not (home / "models" / "starter").exists()
    monkeypatch.setenv("STUDIO_HOME", str(starter_home))
    prepared = model.facts_of(ModelOrder())
    kept = ("rms_norm_eps", "_model_name_or_path", "transformers_version")
    alike = [{key: value for key, value in one.config.items() if key not in kept} for one in (found, prepared)]
    assert alike[0] == alike[1]
    assert found.model_copy(update={"config": {}}) == prepared.model_copy(update={"config": {}})
