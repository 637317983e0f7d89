"""python -m tests.bench.kernels [--save FILE]: kernels that a decoder layer starts on a GPU, and the bytes they move.

Counted, not timed: a training step of a small Llama shape on the pretended accelerator (tests/pretended.py), every
operation that is no view a kernel, attention one. A layer is half the difference of four layers and two. liger-kernel's
kernels, which need Triton, stand in as single operations that read and write what they do.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import torch
from torch import library
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from studio import config
from studio.methods.lora import LoRA
from studio.worker import attention, distributed, fast_lora, fused_kernels
from studio.worker.loss import loss
from studio.worker.packing import collate
from tests import pretended, tiny

TOKENS = 256
SHAPE = {"hidden": 256, "intermediate": 896, "heads": 4, "kv_heads": 1}
WAYS = {"peft's forward": (False, False), "this studio's": (True, False), "and liger-kernel's": (True, True)}
METHODS = {
    "LoRA": {"name": "lora"},
    "LoRA without dropout": {"name": "lora", "dropout": 0.0},
    "QLoRA": {"name": "qlora"},
    "QLoRA without dropout": {"name": "qlora", "dropout": 0.0},
}
NOT_LAUNCHED = ("empty", "new_empty", "detach", "_unsafe_view", "lift_fresh", "_reshape_alias")
PRODUCTS = ("mm", "addmm", "bmm", "linear", "attention", "attention_backward")


class Count(TorchDispatchMode):
    """kernels by name; bytes that those beside matrix products read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: collections.Counter[str] = collections.Counter()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        is_view = any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)
        if func.namespace != "prim" and not is_view and not name.startswith(NOT_LAUNCHED):
            self.kernels[name] += 1
            if name.rstrip("_") not in PRODUCTS:
                tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
                self.nbytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


@library.custom_op("counted::attention", mutates_args=())
def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return query.transpose(1, 2).contiguous()


@library.custom_op("counted::attention_backward", mutates_args=())
def _attention_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


_attention.register_fake(lambda query, key, value: query.transpose(1, 2).contiguous())
_attention_backward.register_fake(
    lambda grad, query, key, value: (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
)
_attention.register_autograd(
    lambda ctx, grad: _attention_backward(grad, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@library.custom_op("counted::fused", mutates_args=())
def _fused(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.empty_like(tensor) for tensor in inputs]


_fused.register_fake(lambda inputs: [torch.empty_like(tensor) for tensor in inputs])


class FusedKernel(torch.autograd.Function):
    """One kernel each way over some tensors; the first `outputs` of them have their like as results."""

    @staticmethod
    def forward(ctx: Any, outputs: int, *inputs: torch.Tensor) -> Any:
        ctx.save_for_backward(*inputs)
        results = _fused(list(inputs))[:outputs]
        return results[0] if outputs == 1 else tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return None, *_fused([*ctx.saved_tensors, *grads])[: len(ctx.saved_tensors)]


def liger_stand_ins() -> dict[str, types.ModuleType]:
    """The modules of liger-kernel that worker/fused_kernels.py imports."""
    names = ("liger_kernel", "liger_kernel.ops", "liger_kernel.transformers", "liger_kernel.transformers.rope")
    modules = {name: types.ModuleType(name) for name in names}
    ops = vars(modules["liger_kernel.ops"])
    ops["LigerRMSNormFunction"] = types.SimpleNamespace(apply=lambda x, *_: FusedKernel.apply(1, x))
    multiply = types.SimpleNamespace(apply=lambda gate, up: FusedKernel.apply(1, gate, up))
    ops["LigerSiLUMulFunction"] = ops["LigerGELUMulFunction"] = multiply
    rope = vars(modules["liger_kernel.transformers.rope"])
    rope["liger_rotary_pos_emb"] = lambda q, k, cos, sin: FusedKernel.apply(2, q, k)
    return modules


def one_attention(module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
    return _attention(query, key, value), None


def step(method: dict[str, Any], layers: int, quick: bool, fused: bool) -> tuple[Count, Count]:
    """(forward, backward) of a training step."""
    order = config.build({"data": {"train": "none.json"}, "method": method})
    with tempfile.TemporaryDirectory() as folder, pretended.accelerator():
        path = tiny.write(Path(folder) / "model", layers=layers, **SHAPE)
        base = pretended.loaded(order.method.load, path, torch.bfloat16, attn_implementation="counted")
        if fused:
            fused_kernels.fuse(base)
        tuned = order.method.wrap(distributed.to_device(base, pretended.NAME)).train()
        base.config.use_cache = False
        assert isinstance(order.method, LoRA)
        for module in tuned.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = False
        if quick:
            fast_lora.speed_up_lora(tuned, True)
        row = {"input_ids": [5] * TOKENS, "labels": [5] * TOKENS}
        inputs = {key: pretended.given(value) for key, value in collate([row], False).items()}
        positions = pretended.given(torch.arange(TOKENS - 1))
        forward, backward = Count(), Count()
        with fast_lora.narrow_copies(tuned, torch.bfloat16):
            with forward, torch.autocast(pretended.NAME, torch.bfloat16):
                total = loss(tuned, inputs, "chunked", torch.bfloat16, target_positions=positions)
            with backward:
                total.backward()
    return forward, backward


def measure() -> list[dict[str, Any]]:
    """A row a method and a way: kernels of a layer, and bytes a token and hidden number beside products."""
    sys.modules.update(liger_stand_ins())
    attention.AttentionInterface.register("counted", one_attention)
    rows = []
    for name, method in METHODS.items():
        for way, chosen in WAYS.items():
            few, many = step(method, 2, *chosen), step(method, 4, *chosen)
            kernels = [(more.kernels.total() - less.kernels.total()) // 2 for less, more in zip(few, many)]
            nbytes = [(more.nbytes - less.nbytes) / 2 / TOKENS / SHAPE["hidden"] for less, more in zip(few, many)]
            rows.append(
                {
                    "method": name,
                    "way": way,
                    "forward": kernels[0],
                    "backward": kernels[1],
                    "bytes_forward": round(nbytes[0], 1),
                    "bytes_backward": round(nbytes[1], 1),
                }
            )
    return rows


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--save", type=Path)
    path = arguments.parse_args().save
    table = measure()
    print(json.dumps(table, indent=1))
    if path:
        path.write_text(json.dumps({"rows": table}, indent=1) + "\n")
