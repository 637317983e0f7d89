"""Attention over packed rows: each row attends to itself alone, and no square mask over all of them is ever made.

Entered in transformers' registry under the name LAID, beside "sdpa" and "eager". Batches say where rows begin by `cu_seq_lens_q` (a tensor,
for kernels) and `row_starts` (the same as Python ints, so that no device is asked); without them (padded rows, generation) it is plain causal
SDPA. On CUDA torch's own variable-length flash attention does the work. On the CPU products of small matrices do, which ran two to three times
faster there than the flash kernel (forward and backward, rows up to some hundred tokens).

No mask function is registered for the name: transformers then makes no mask, and does not ask the device whether rows are packed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from studio.kernels import MATMUL_ATTENTION_MAX_TOKENS

PACKED_ATTENTION = "packed"


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """query [b, heads, t, d], key and value [b, kv heads, t, d]; gives [b, t, heads, d]."""
    starts, ends = given.pop("cu_seq_lens_q", None), given.pop("row_starts", None)
    query, key, value = (_narrow(one) for one in (query, key, value))
    if attention_mask is not None or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **given
        )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if starts is None:
        return _causal(query, key, value, scale, dropout).transpose(1, 2).contiguous(), None
    if not dropout and _flash(query):
        return _varlen(query, key, value, starts, given["max_length_q"], scale), None
    places = ends if ends is not None else starts.tolist()
    parts = [
        _one(query[0, :, start:end], key[0, :, start:end], value[0, :, start:end], scale, dropout)
        for start, end in zip(places, places[1:])
    ]
    return torch.cat(parts, 1).transpose(0, 1).unsqueeze(0).contiguous(), None


def _narrow(tensor: torch.Tensor) -> torch.Tensor:
    """In autocast's type where autocast is on. Rotary embeddings leave float32 queries and keys where all weights are trained in float32;
    the variable-length kernel is no operation that autocast knows, and takes 16 bits only."""
    kind = tensor.device.type
    widened = (
        tensor.dtype == torch.float32 and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    )
    return tensor.to(torch.get_autocast_dtype(kind)) if widened else tensor


def _one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float) -> torch.Tensor:
    """One row: query [heads, n, d], key and value [kv heads, n, d]; gives [heads, n, d]."""
    heads, length, width = query.shape
    if query.device.type != "cpu" or dropout or length > MATMUL_ATTENTION_MAX_TOKENS:
        return _causal(query[None], key[None], value[None], scale, dropout)[0]
    groups = heads // key.shape[0]
    ahead = (
        torch.full((length, length), float("-inf"), dtype=query.dtype, device=query.device).triu_(1).repeat(groups, 1)
    )
    together = query.reshape(key.shape[0], groups * length, width)  # the heads that share a key stand below each other
    scores = torch.baddbmm(ahead, together, key.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), value).reshape(heads, length, width)


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float) -> torch.Tensor:
    """torch's SDPA, [b, heads, t, d] as given. Shared keys and values are expanded where only the flash kernel takes them shared: SDPA would else
    fall back to the math kernel, which forms heads · t² numbers a layer."""
    groups = query.shape[1] // key.shape[1]
    shared = groups > 1 and (query.device.type == "cpu" or _flash(query))
    if groups > 1 and not shared:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    return scaled_dot_product_attention(
        query, key, value, is_causal=query.shape[2] > 1, scale=scale, dropout_p=dropout, enable_gqa=shared
    )


def _flash(query: torch.Tensor) -> bool:
    """Whether torch's flash attention can take it: CUDA, 16 bits, heads of at most 256, Ampere or newer."""
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, longest: int, scale: float
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    flat = [one[0].transpose(0, 1) for one in (query, key, value)]  # [t, heads, d]
    return varlen_attn(
        *flat,
        starts,
        starts,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    ).unsqueeze(0)


def register() -> None:
    """Make the name known to transformers."""
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
