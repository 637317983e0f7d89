"""A method's count of what it trains, without torch, is what the wrapped model trains, on every architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from studio import model
from studio.base import targets
from studio.base.tensors import EMBEDDING, Tensor
from studio.errors import OrderError
from studio.methods import METHODS
from tests.methods.architectures import CONFIGS
from tests.methods.variants import VARIANTS, made, title


def count(wrapped: Any) -> int:
    return sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad)


@pytest.mark.parametrize("kind", CONFIGS)
def test_facts_agree_with_the_loaded_model(architecture: Callable[[str], Path], kind: str) -> None:
    folder = architecture(kind)
    facts, loaded = model.facts(folder), METHODS["lora"]().load(folder, torch.float32)
    assert facts.parameters == sum(weight.numel() for weight in loaded.parameters())
    assert facts.linears() == targets.live(loaded)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("name", METHODS)
def test_default_knobs(architecture: Callable[[str], Path], kind: str, name: str) -> None:
    method, folder = METHODS[name](), architecture(kind)
    facts = model.facts(folder)
    if (kind, name) == ("mixtral", "adapter"):  # its feed-forward is no linear
        with pytest.raises(OrderError, match="Take lora"):
            method.trainable(facts)
        return
    said = method.trainable(facts)
    wrapped = method.wrap(method.load(folder, torch.float32))
    assert said == count(wrapped)
    assert {weight.dtype for weight in wrapped.parameters() if weight.requires_grad} == {torch.float32}


@pytest.mark.parametrize("variant", VARIANTS, ids=title)
def test_every_variant(tiny_model: Path, variant: dict[str, Any]) -> None:
    """On bf16 too, what is trained is float32."""
    method = made(variant)
    wrapped = method.wrap(method.load(tiny_model, torch.bfloat16))
    assert method.trainable(model.facts(tiny_model)) == count(wrapped)
    assert {weight.dtype for weight in wrapped.parameters() if weight.requires_grad} == {torch.float32}


def test_formulas() -> None:
    """The numbers that papers and tutorials give: r(d_in + d_out) a layer; 2md + d + m a site."""
    facts = model.from_config(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "num_hidden_layers": 1,
            "vocab_size": 100,
        },
        {
            "model.layers.0.self_attn.o_proj.weight": Tensor(dtype="BF16", shape=(4096, 4096)),
            "model.layers.0.mlp.down_proj.weight": Tensor(dtype="BF16", shape=(4096, 11008)),
        },
    )
    assert METHODS["lora"](rank=8, target_modules=("o_proj",)).trainable(facts) == 65_536
    assert METHODS["lora"](rank=16).trainable(facts) == 16 * (4096 + 4096) + 16 * (11008 + 4096)
    assert METHODS["adapter"](size=64).trainable(facts) == 2 * (2 * 64 * 4096 + 4096 + 64)
    assert METHODS["adapter"](size=64, placement="pfeiffer").trainable(facts) == 2 * 64 * 4096 + 4096 + 64
    assert METHODS["prefix"](virtual_tokens=20).trainable(facts) == 20 * 2 * 4096
    assert METHODS["prompt"](virtual_tokens=20).trainable(facts) == 20 * 4096


def test_parts_of_the_model(architecture: Callable[[str], Path]) -> None:
    """Full fine-tuning of chosen parts: layers from the end, embeddings left alone."""
    facts = model.facts(architecture("mistral"))
    last = METHODS["full"](last_layers=1).trained(facts)
    assert {targets.layer_of(name) for name in last} == {1, None}
    assert "lm_head.weight" in last
    assert not [name for name in METHODS["full"](freeze_embeddings=True).trained(facts) if EMBEDDING.search(name)]
    assert set(METHODS["full"]().trained(facts)) == set(facts.tensors)
    with pytest.raises(OrderError, match="has 2 layers"):
        METHODS["full"](last_layers=3).trained(facts)
