"""Stack: how a training loop computes: number formats, kernels, head, batch. Ours by default; others' loops by other switches."""

from __future__ import annotations

from typing import NamedTuple


class Stack(NamedTuple):
    """One micro-batch of one training loop.

    base: bytes of a stored weight of the base; stream: of a number on the residual stream; autocast: bytes of the format that
    products are computed in, 0 where autocast is off.
    batch × length: tokens of the padded batch; labels: positions with a label. mask: an attention mask is given, so that heads that
    share keys are expanded and every layer keeps the mask in the computing format.
    head: "chunked" (ours), "fused" (Liger's: logits in chunks of the hidden width), "full". output: bytes a logit that the caller
    keeps holding during backward. kbit: k-bit preparation lifted norms, embeddings and head to float32.
    """

    device: str = "cuda"
    batch: int = 1
    length: int = 1024
    labels: int | None = None
    base: int = 2
    stream: int = 2
    autocast: int = 2
    attention: str = "sdpa"  # sdpa, flash, eager
    mask: bool = True
    checkpointing: bool = False
    head: str = "chunked"
    output: int = 0
    accumulates: bool = False  # gradients stay from micro-batch to micro-batch
    optimizer: str = "adamw_torch_fused"
    kbit: bool = False
    cached_keys: bool = False  # the loop forgot use_cache=False
    fused_norms: bool = False  # kernels for norms, rotary and gates that keep only their inputs (Liger, fms' foak)
    fused_adapters: bool = False  # fms' foak: an adapter's forward keeps its input once, in the computing format
    input_grads: bool = False  # the embeddings' output asks for a gradient (enable_input_require_grads)

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    @property
    def compute(self) -> int:
        """Bytes of a product's result."""
        return self.autocast or self.base
