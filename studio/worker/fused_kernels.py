"""liger-kernel's Triton kernels (arXiv 2410.10989) in a model's norms, rotary positions and gated feed-forwards.

Instances are changed, no class and no module of transformers. Which families: proved.FUSED; each is compared with what
transformers computes under Triton's interpreter (tests/worker/test_fused_kernels.py).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from transformers.activations import GELUTanh, SiLUActivation

ROTARY = "apply_rotary_pos_emb"  # as transformers' modeling files call it


def fuse(base: Any) -> None:
    """Set the fused forwards on the modules of a base model of a family in proved.FUSED."""
    from liger_kernel.ops import LigerGELUMulFunction, LigerSiLUMulFunction
    from liger_kernel.transformers.rope import liger_rotary_pos_emb

    gated = {
        SiLUActivation: LigerSiLUMulFunction.apply,
        torch.nn.SiLU: LigerSiLUMulFunction.apply,
        GELUTanh: LigerGELUMulFunction.apply,
    }
    is_gemma = base.config.get_text_config().model_type.startswith("gemma")
    for module in base.modules():
        forward = type(module).forward
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = functools.partial(_norm, module, is_gemma)
        elif hasattr(module, "gate_proj") and type(getattr(module, "act_fn", None)) in gated:
            module.forward = functools.partial(_feed_forward, module, gated[type(module.act_fn)])
        elif ROTARY in getattr(forward, "__globals__", {}) and ROTARY in forward.__code__.co_names:
            module.forward = types.MethodType(_with_global(forward, ROTARY, liger_rotary_pos_emb), module)


def _norm(module: Any, is_gemma: bool, hidden_states: torch.Tensor) -> torch.Tensor:
    """Gemma's multiplies by 1 + weight, in float32."""
    from liger_kernel.ops import LigerRMSNormFunction

    eps = module.eps if is_gemma else module.variance_epsilon
    offset, casting = (1.0, "gemma") if is_gemma else (0.0, "llama")
    return LigerRMSNormFunction.apply(hidden_states, module.weight, eps, offset, casting, False)


def _feed_forward(module: Any, multiply: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return module.down_proj(multiply(module.gate_proj(x), module.up_proj(x)))


def _with_global(function: Any, name: str, value: Any) -> Any:
    """A copy of a function that sees another global under a name."""
    copied = types.FunctionType(
        function.__code__,
        {**function.__globals__, name: value},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied
