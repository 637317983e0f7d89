"""Run by test_fused_kernels.py under Triton's interpreter: liger-kernel's forwards against transformers' own."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studio.base import proved
from studio.worker import fused_kernels

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}


@pytest.fixture(autouse=True)
def _what_the_interpreter_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float arguments, which the compiler makes float32 numbers, and the two functions of CUDA's libdevice."""
    from liger_kernel.ops import geglu, rms_norm
    from triton import language

    monkeypatch.setattr(rms_norm, "rsqrt", lambda x: language.rsqrt(x))
    monkeypatch.setattr(geglu, "tanh", lambda x: 1 - 2 / (language.exp(2 * x) + 1))
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    convert = interpreter._implicit_cvt

    def converted(argument: Any) -> Any:
        if not isinstance(argument, float):
            return convert(argument)
        handle = interpreter.TensorHandle(numpy.array([argument], dtype=numpy.float32), interpreter.tl.float32)
        return interpreter.tl.tensor(handle, interpreter.tl.float32)

    monkeypatch.setattr(interpreter, "_implicit_cvt", converted)


@pytest.mark.parametrize("family", sorted(proved.FUSED))
def test_fused_forward_and_backward_are_those_of_transformers(family: str) -> None:
    """Loss and gradients in float32, of two packed rows and of a padded batch."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE)).train()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)  # also of norms, whose weights begin as ones or zeros
    ids = torch.randint(1, 64, (2, 9))
    inputs: list[dict[str, Any]] = [
        {"input_ids": ids},
        {"input_ids": ids.view(1, -1), "position_ids": torch.arange(9).repeat(1, 2)},
    ]
    plain = [_losses(model, given) for given in inputs]
    classes = {type(module) for module in model.modules()}
    before = {kind: kind.forward for kind in classes}
    fused_kernels.fuse(model)
    assert {kind: kind.forward for kind in classes} == before, "a class was changed"
    changed = {type(module).__name__ for module in model.modules() if "forward" in vars(module)}
    assert {name[-7:] for name in changed} >= {"RMSNorm", "tention"[-7:]}
    assert any(name.endswith("MLP") for name in changed)
    for given, expected in zip(inputs, plain, strict=True):
        for mine, theirs in zip(_losses(model, given), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-5)


def _losses(model: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    model.zero_grad()
    loss = torch.nn.functional.cross_entropy(
        model(**inputs, use_cache=False).logits[:, :-1].flatten(0, 1).float(), inputs["input_ids"][:, 1:].flatten()
    )
    loss.backward()
    return [loss.detach(), *(weight.grad.clone() for weight in model.parameters())]
