"""Attention over packed rows: each row attends to itself alone, and no mask over all of them is ever formed.

Registered in transformers under the name PACKED_ATTENTION, beside "sdpa" and "eager". Micro-batches say where rows
begin by `cu_seq_lens_q` (a tensor, for kernels) and `row_starts` (the same as Python ints: no GPU sync). Without them
(padded rows, generation) it is plain causal SDPA. On CUDA torch's variable-length flash attention computes it. On the
CPU products of small matrices do, two to three times faster there than the flash kernel (forward and backward, rows up
to some hundred tokens).

No mask function is registered for the name: transformers then forms no mask, and does not ask the device whether rows
are packed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from studio.kernels import MATMUL_ATTENTION_MAX_TOKENS, ROW_MULTIPLE_OF

PACKED_ATTENTION = "packed"


def register() -> None:
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query: [b, heads, t, d]; key, value: [b, kv heads, t, d]. Returns [b, t, heads, d], no attention weights."""
    cu_seq_lens, row_starts = kwargs.pop("cu_seq_lens_q", None), kwargs.pop("row_starts", None)
    query, key, value = _autocast(query), _autocast(key), _autocast(value)
    if attention_mask is not None or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    head_dim = query.shape[-1]
    scale = scaling if scaling is not None else head_dim**-0.5
    if head_dim % 8 and query.device.type != "cpu":  # a card's kernels take no other heads; zeros change no score
        query, key, value = (pad(tensor, (0, -head_dim % 8)) for tensor in (query, key, value))
    if cu_seq_lens is None:
        return _causal(query, key, value, scale, dropout)[..., :head_dim].transpose(1, 2).contiguous(), None
    if not dropout and _has_flash(query, key, value):
        return _varlen(query, key, value, cu_seq_lens, kwargs["max_length_q"], scale)[..., :head_dim], None
    starts = row_starts if row_starts is not None else cu_seq_lens.tolist()
    lengths = [end - start for start, end in zip(starts, starts[1:])]
    # split, not sliced: the gradients of slices are each as large as all rows, and are added up
    parts = zip(*(tensor[0].split(lengths, 1) for tensor in (query, key, value)), strict=True)
    rows = [_row_attention(*part, scale, dropout) for part in parts]
    return torch.cat(rows, 1)[..., :head_dim].transpose(0, 1).unsqueeze(0).contiguous(), None


def _autocast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in autocast's dtype where autocast is on.

    Rotary embeddings give float32 queries and keys where all weights are trained in float32; autocast does not know the
    variable-length kernel, which takes 16 bits only.
    """
    device = tensor.device.type
    if tensor.dtype != torch.float32 or not torch.amp.is_autocast_available(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor


def _row_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float
) -> torch.Tensor:
    """One row. query: [heads, t, d]; key and value: [kv heads, t, d]. Returns [heads, t, d]."""
    tokens = query.shape[1]
    if query.device.type == "cpu" and query.dtype.itemsize == 2 and tokens % ROW_MULTIPLE_OF:
        # zeros behind the row, to which none of its tokens attends
        query, key, value = (pad(tensor, (0, 0, 0, -tokens % ROW_MULTIPLE_OF)) for tensor in (query, key, value))
        return _row_attention(query, key, value, scale, dropout)[:, :tokens]
    heads, length, head_dim = query.shape
    if query.device.type != "cpu" or dropout or length > MATMUL_ATTENTION_MAX_TOKENS:
        return _causal(query[None], key[None], value[None], scale, dropout)[0]
    kv_heads = key.shape[0]
    groups = heads // kv_heads
    mask = torch.full((length, length), float("-inf"), dtype=query.dtype, device=query.device).triu_(1)
    grouped_query = query.reshape(kv_heads, groups * length, head_dim)  # query heads that share a key, below each other
    scores = torch.baddbmm(mask.repeat(groups, 1), grouped_query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), value).reshape(heads, length, head_dim)


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float) -> torch.Tensor:
    """torch's causal SDPA, [b, heads, t, d].

    Shared keys and values are repeated except where the flash kernel takes them shared: SDPA would otherwise fall back
    to the math kernel, which forms heads · t² scores a layer.
    """
    groups = query.shape[1] // key.shape[1]
    enable_gqa = groups > 1 and (query.device.type == "cpu" or _has_flash(query, key, value))
    if groups > 1 and not enable_gqa:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    return scaled_dot_product_attention(
        query, key, value, is_causal=query.shape[2] > 1, scale=scale, dropout_p=dropout, enable_gqa=enable_gqa
    )


def _has_flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch's flash attention takes them on this card, as torch itself says."""
    shares_keys = query.shape[1] != key.shape[1]
    return query.is_cuda and can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, True, shares_keys))


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_lens: torch.Tensor,
    max_length: int,
    scale: float,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(
        *(tensor[0].transpose(0, 1) for tensor in (query, key, value)),  # [t, heads, d]
        cu_seq_lens,
        cu_seq_lens,
        max_length,
        max_length,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    ).unsqueeze(0)
