"""Attention over rows laid end to end: each row looks at itself alone, and no square mask over all of them is ever made.

Entered in transformers' registry under the name LAID, beside "sdpa" and "eager". Batches say where rows begin by `cu_seq_lens_q`;
without it (generation) it is plain SDPA. On CUDA torch's own variable-length flash attention does the work. On the CPU products of
small matrices do, which ran two to three times faster there than the flash kernel (forward and backward, rows up to some hundred tokens).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

LAID = "laid"
SHORT = 1024  # tokens up to which a row's square of scores is formed: 1024² × 2 bytes a head


def laid(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
         scaling: float | None = None, dropout: float = 0.0, **given: Any) -> tuple[torch.Tensor, None]:
    """query [b, heads, t, d], key and value [b, kv heads, t, d]; gives [b, t, heads, d]."""
    starts = given.pop("cu_seq_lens_q", None)
    if starts is None or attention_mask is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **given)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if query.is_cuda and not dropout and _flash(query):
        return _varlen(query, key, value, starts, given["max_length_q"], scale), None
    places = starts.tolist()
    parts = [_one(query[0, :, start:end], key[0, :, start:end], value[0, :, start:end], scale, dropout) for start, end in zip(places, places[1:])]
    return torch.cat(parts, 1).transpose(0, 1).unsqueeze(0).contiguous(), None


def _one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float) -> torch.Tensor:
    """One row: query [heads, n, d], key and value [kv heads, n, d]; gives [heads, n, d]."""
    heads, length, width = query.shape
    if query.is_cuda or dropout or length > SHORT:
        return torch.nn.functional.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True, scale=scale,
                                                                dropout_p=dropout, enable_gqa=heads != key.shape[0])[0]
    groups = heads // key.shape[0]
    ahead = torch.full((length, length), float("-inf"), dtype=query.dtype).triu_(1).repeat(groups, 1)
    together = query.reshape(key.shape[0], groups * length, width)  # the heads that share a key stand below each other
    scores = torch.baddbmm(ahead, together, key.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), value).reshape(heads, length, width)


def _flash(query: torch.Tensor) -> bool:
    """Whether torch's variable-length flash attention can take it: 16 bits, heads of at most 256, Ampere or newer."""
    return query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] <= 256 and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _varlen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, longest: int, scale: float) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn
    flat = [one[0].transpose(0, 1) for one in (query, key, value)]  # [t, heads, d]
    return varlen_attn(*flat, starts, starts, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1]).unsqueeze(0)


def _mask(*given: Any, **named: Any) -> torch.Tensor | None:
    """None: `laid` knows from cu_seq_lens what may be seen. A mask that was handed in is made as for SDPA."""
    return None if named.get("attention_mask") is None else sdpa_mask(*given, **named)


def enter() -> None:
    """Make the name known to transformers."""
    AttentionInterface.register(LAID, laid)
    AttentionMaskInterface.register(LAID, _mask)
