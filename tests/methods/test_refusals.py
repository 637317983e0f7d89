"""Combinations that cannot work are refused in words, from headers alone, in far less than 200 ms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from studio import model
from studio.base import quantization
from studio.config import build
from studio.device import Device
from studio.errors import OrderError
from studio.home import PROJECT
from studio.methods import METHODS

CPU = Device(kind="cpu", name="Some CPU", memory=2**34, free=2**33, bf16=True)
OLD = CPU.model_copy(update={"bf16": False})
T4 = Device(kind="cuda", name="Tesla T4", memory=2**34, free=2**33, capability=(7, 5), bf16=False)
M40 = T4.model_copy(update={"name": "Tesla M40", "capability": (5, 2)})
P100 = T4.model_copy(update={"name": "Tesla P100", "capability": (6, 0)})
APPLE = CPU.model_copy(update={"kind": "mps", "name": "Apple GPU"})

CASES = [
    (
        "prefix with checkpointing",
        {"name": "prefix"},
        {"checkpointing": True},
        CPU,
        "gradient checkpointing",
        "training.checkpointing",
    ),
    ("bf16 on an old CPU", {"name": "lora"}, {"precision": "bf16"}, OLD, "bf16", "training.precision"),
    ("bf16 on a T4", {"name": "full"}, {"precision": "bf16"}, T4, "Tesla T4", "training.precision"),
    ("4 bits on Apple", {"name": "qlora"}, {}, APPLE, "Apple GPU", "method.quantization"),
    ("4 bits on an M40", {"name": "adapter", "quantization": "nf4"}, {}, M40, "too old", "method.quantization"),
    ("8 bits on a P100", {"name": "qlora", "quantization": "int8"}, {}, P100, "too old", "method.quantization"),
    ("bf16 products on a T4", {"name": "qlora", "compute": "bf16"}, {}, T4, "bf16", "method.compute"),
    ("DoRA from PiSSA", {"name": "lora", "dora": True, "init": "pissa"}, {}, CPU, "DoRA", "method.init"),
    (
        "DoRA on 8 bits without CUDA",
        {"name": "qlora", "dora": True, "quantization": "int8"},
        {},
        CPU,
        "8-bit",
        "method.dora",
    ),
    (
        "a layer that is not there",
        {"name": "lora", "target_modules": "qproj"},
        {},
        CPU,
        "'qproj'",
        "method.target_modules",
    ),
    (
        "a factor on nothing",
        {"name": "ia3", "feedforward_modules": "dwn_proj"},
        {},
        CPU,
        "'dwn_proj'",
        "method.feedforward_modules",
    ),
    (
        "a part that is not there",
        {"name": "lora", "modules_to_save": ["score"]},
        {},
        CPU,
        "'score'",
        "method.modules_to_save",
    ),
    ("more layers than there are", {"name": "full", "last_layers": 30}, {}, CPU, "2 layers", "method.last_layers"),
    (
        "more directions than there are",
        {"name": "lora", "rank": 64, "init": "olora"},
        {},
        CPU,
        "at most",
        "method.rank",
    ),
    ("an empty text", {"name": "prompt", "text": "  "}, {}, CPU, "empty", "method.text"),
    *[
        (f"{name} with packing", {"name": name}, {"packing": True}, CPU, "packing", "training.packing")
        for name, kind in METHODS.items()
        if not kind.allows_packing
    ],
]


@pytest.mark.parametrize(
    ("method", "training", "device", "words", "where"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_refused(tiny_model: Path, method: dict, training: dict, device: Device, words: str, where: str) -> None:
    order = build({"data": {"train": "sample"}, "method": method, "training": training})
    with pytest.raises(OrderError, match=words) as refused:
        order.method.refuse(model.facts(tiny_model), order.training, device)
    assert refused.value.where == where
    assert refused.value.hint


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_allowed(tiny_model: Path, name: str) -> None:
    order = build({"data": {"train": "sample"}, "method": name})
    for device in (CPU, OLD, T4):
        order.method.refuse(model.facts(tiny_model), order.training, device)


def test_the_head_is_named_with_what_trains_it(tiny_model: Path) -> None:
    """It said that the model has no layer of that name."""
    with pytest.raises(OrderError, match="no LoRA on the embeddings or the head, and 'lm_head'") as refused:
        METHODS["qlora"](target_modules=("q_proj", "lm_head")).trained(model.facts(tiny_model))
    assert "method.modules_to_save to [lm_head]" in refused.value.hint
    assert METHODS["qlora"](target_modules=("q_proj",), modules_to_save=("lm_head",)).trained(model.facts(tiny_model))


def test_nearest_names(tiny_model: Path) -> None:
    with pytest.raises(OrderError) as refused:
        METHODS["lora"](target_modules=("q_prj", "v_proj")).trained(model.facts(tiny_model))
    assert "'q_prj'" in refused.value.message
    assert "v_proj" not in refused.value.message
    assert "Did you mean q_proj" in refused.value.hint
    assert "down_proj" in refused.value.hint


def test_roles_on_models_with_other_names(architecture: Callable[[str], Path]) -> None:
    """q-v and attention mean the same part of a model whatever its layers are called."""

    def names(kind: str, preset: str) -> set[str]:
        return {
            name.rsplit(".", 1)[-1]
            for name in METHODS["lora"](target_modules=preset).targets(model.facts(architecture(kind)))
        }

    assert names("llama", "q-v") == {"q_proj", "v_proj"}
    assert names("gpt2", "q-v") == {"c_attn"}
    assert names("phi3", "q-v") == {"qkv_proj"}
    assert names("gpt_neox", "attention") == {"query_key_value", "dense"}
    assert (
        len(METHODS["lora"](target_modules="attention").targets(model.facts(architecture("gpt2")))) == 4
    )  # c_proj of attention, not of the mlp


def test_quantized_models(tiny_model: Path) -> None:
    facts = model.facts(tiny_model)
    packed = facts.model_copy(update={"config": {**facts.config, "quantization_config": {"quant_method": "gptq"}}})
    order = build({"data": {"train": "sample"}, "method": {"name": "lora", "dora": True}})
    with pytest.raises(OrderError, match="gptq"):
        order.method.refuse(packed, order.training, CPU)
    with pytest.raises(OrderError, match="already quantized"):
        METHODS["qlora"]().refuse(packed, order.training, CPU)


def test_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(OrderError, match="not installed"):
        METHODS["qlora"]().refuse(None, None, CPU)


def test_refusing_loads_no_torch(tiny_model: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom studio import model\nfrom studio.methods import METHODS\nfrom "
        f"studio.device import devices\nfacts = model.facts(Path({str(tiny_model)!r}))\nfor kind in METHODS.values(): "
        "kind().refuse(facts, None, devices()[0])\nprint([name for name in ('torch', 'peft', 'transformers', "
        "'bitsandbytes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
    assert not done.stderr


def test_full_warns_of_forgetting() -> None:
    order = build({"data": {"train": "sample"}, "method": "full", "training": {"learning_rate": 1e-3}})
    said = order.method.cautions(order.training)
    assert "forget" in said[0]
    assert "mix" in said[0]
    assert "0.001" in said[1]
    assert not METHODS["lora"]().cautions(order.training)
