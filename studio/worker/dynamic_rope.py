"""Rotary frequencies that follow the longest sequence read (LongRoPE, dynamic NTK).

transformers takes them from the furthest position of all rows of a forward, padding too, and dynamic NTK from the
forwards before. Here each sequence has those that it has alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch

ORIGINAL = "original_inv_freq"  # as transformers' rotary modules call it, behind a layer type where there are several
_padding: ContextVar[Sequence[int] | None] = ContextVar("padding", default=None)


def switch(config: Any) -> tuple[str, int] | None:
    """("longrope" or "dynamic", tokens beyond which a sequence has other frequencies) of a text model's config; None
    where they never change.
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for part in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        kind = str(part.get("rope_type") or part.get("type"))
        if kind in ("longrope", "su"):
            original = part.get("original_max_position_embeddings")
            own = getattr(config, "original_max_position_embeddings", None)
            return "longrope", original or own or config.max_position_embeddings
        if "dynamic" in kind:
            return "dynamic", config.max_position_embeddings
    return None


@contextmanager
def padded(tokens: Sequence[int] | None) -> Iterator[None]:
    """While the block lasts, the rows that a model reads end in padding. tokens: of each row; None: there is none."""
    before = _padding.set(tokens)
    try:
        yield
    finally:
        _padding.reset(before)


def each_as_alone(model: Any) -> Any:
    """The model, whose rotary modules give each sequence of a forward the frequencies that it has alone."""
    switched = switch(model.config.get_text_config())
    for module in model.modules() if switched else ():
        if hasattr(module, "max_seq_len_cached") and hasattr(module, "rope_type"):
            module.forward = partial(_forward, module, switched[1])
    return model


def _forward(module: Any, switch: int, x: torch.Tensor, position_ids: torch.Tensor, *args: Any, **options: Any) -> Any:
    """Call the module's forward once for all sequences up to the switch, and once for each length beyond it."""
    positions, lengths = _sequences(position_ids)
    lengths = lengths.where(lengths > switch, 0)
    frequencies: Any = None
    for length in lengths.unique().tolist():
        chosen = lengths == length
        if "dynamic" in str(module.rope_type):
            _begin_anew(module)
        these = type(module).forward(module, x, positions.where(chosen, 0), *args, **options)
        frequencies = these if frequencies is None else _choose(chosen[..., None], these, frequencies)
    return frequencies


def _sequences(position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(positions, with 0 at padding; length of the sequence that each token belongs to), both [rows, tokens]."""
    positions, padding = position_ids, _padding.get()
    if padding is not None:
        width = positions.shape[-1]
        ends = width - torch.as_tensor(padding, device=positions.device)[:, None]
        positions = positions.where(torch.arange(width, device=positions.device) < ends, 0)
    begins = torch.ones_like(positions, dtype=torch.bool)
    begins[:, 1:] = positions.diff() != 1
    number = begins.flatten().cumsum(0) - 1
    furthest = torch.zeros_like(number).scatter_reduce(0, number, positions.flatten(), "amax")
    return positions, (furthest[number] + 1).view_as(positions)


def _choose(chosen: torch.Tensor, some: Any, other: Any) -> Any:
    if isinstance(some, tuple):
        return tuple(_choose(chosen, *pair) for pair in zip(some, other, strict=True))
    return some.where(chosen, other)


def _begin_anew(module: Any) -> None:
    """Forget the frequencies of the sequences before."""
    for name in [name for name in (*vars(module), *module._buffers) if name.endswith(ORIGINAL)]:
        prefix = name.removesuffix(ORIGINAL)
        current = getattr(module, f"{prefix}inv_freq")
        module.register_buffer(f"{prefix}inv_freq", getattr(module, name).to(current.device), persistent=False)
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
