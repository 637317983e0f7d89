"""Dynamic NTK keeps the frequencies of the longest sequence so far in transformers; here each forward begins anew."""

from __future__ import annotations

from typing import Any

ORIGINAL = "original_inv_freq"  # as transformers' rotary modules call it, behind a layer type where there are several


def begin_anew_each_forward(model: Any) -> Any:
    """The model; its rotary modules with dynamic frequencies forget the sequences before."""
    for module in model.modules():
        if hasattr(module, "max_seq_len_cached") and "dynamic" in str(getattr(module, "rope_type", "")):
            module.register_forward_pre_hook(_reset)
    return model


def _reset(module: Any, _: Any) -> None:
    for name in [name for name in (*vars(module), *module._buffers) if name.endswith(ORIGINAL)]:
        prefix = name.removesuffix(ORIGINAL)
        current = getattr(module, f"{prefix}inv_freq")
        module.register_buffer(f"{prefix}inv_freq", getattr(module, name).to(current.device), persistent=False)
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
