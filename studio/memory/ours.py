"""Ours: the Stack of our own trainer (worker/train.py) for an order, a device and what is known of the data."""

from __future__ import annotations

from typing import NamedTuple

from studio.config import RunConfig
from studio.device import Device
from studio.footprint import Footprint
from studio.memory.stack import Stack
from studio.model import EMBEDDING, ModelFacts

PAD = 64  # worker/batches.py pads to multiples of this
LABELLED = 0.7  # share of tokens with a label where the data is not known yet


class Rows(NamedTuple):
    """What an estimate wants to know of the data: usable rows, tokens in all, tokens with a label, tokens of the longest row, rows held out."""

    rows: int
    tokens: int
    trained: int
    longest: int
    held: int = 0

    @property
    def mean(self) -> float:
        return self.tokens / max(1, self.rows)


def longest(config: RunConfig, rows: Rows | None) -> int:
    """Tokens of the longest padded row."""
    most = config.data.max_length if rows is None else min(config.data.max_length, rows.longest)
    return -(-most // PAD) * PAD


def stack(config: RunConfig, facts: ModelFacts, device: Device, rows: Rows | None, footprint: Footprint, checkpointing: bool) -> Stack:
    """The longest batch the run can meet."""
    training, each = config.training, width(config, device)
    packed = training.packing is True
    batch = training.batch_size if rows is None else max(1, min(training.batch_size, rows.rows))
    length = longest(config, rows)
    share = LABELLED if rows is None else min(1.0, rows.trained / max(1, rows.tokens))
    tables = any(EMBEDDING.search(name) for name in footprint.weights)
    return Stack(
        device="cpu" if device.kind == "cpu" else "cuda", batch=batch, length=length, labels=max(1, int(batch * length * share)),
        base=each, stream=4 if tables else each, autocast=0 if each == 4 else each, attention="sdpa" if training.attention == "auto" else training.attention,
        mask=True, checkpointing=checkpointing, head="full" if training.label_smoothing or training.loss == "full" else "chunked",
        output=0, accumulates=training.accumulated(rows.rows if rows else 1000) > 1, optimizer=optimizer(config, device),
        input_grads=checkpointing and not tables and not packed)


def width(config: RunConfig, device: Device) -> int:
    """Bytes of a number of the frozen base: 2 where 16 bits are ordered, or auto and the device computes in them."""
    wanted = config.training.precision
    return 4 if wanted == "fp32" or wanted == "auto" and device.kind != "cuda" and not device.bf16 else 2


def optimizer(config: RunConfig, device: Device) -> str:
    """The optimizer ordered, else the method's own, else fused AdamW."""
    if config.training.optimizer != "auto":
        return config.training.optimizer
    return config.method.optimizer(device) or "adamw_torch_fused"


