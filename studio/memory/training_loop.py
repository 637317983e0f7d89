"""TrainingLoop: how a training loop computes: number formats, kernels, head, batch. Ours by default; others' loops by other switches."""

from __future__ import annotations

from typing import NamedTuple


class TrainingLoop(NamedTuple):
    """One micro-batch of one training loop.

    base: bytes of a stored weight of the base; stream: of a number on the residual stream; autocast: bytes of the format that
    products are computed in, 0 where autocast is off.
    batch × length: tokens of the padded batch; labels: positions with a label. mask: an attention mask is given, which every layer
    keeps in the computing format.
    head: "chunked" (ours), "fused" (Liger's: logits in chunks of the hidden width), "full". output: bytes a logit that the caller
    keeps holding during backward. kbit: k-bit preparation lifted norms, embeddings and head to float32.
    """

    device: str = "cuda"
    batch: int = 1
    length: int = 1024
    row: int = 1024  # the longest of the rows that are laid end to end in one
    labels: int | None = None
    base: int = 2
    stream: int = 2
    autocast: int = 2
    attention: str = "sdpa"  # sdpa, flash, eager, laid (worker/attention.py)
    mask: bool = True
    expanded: bool = True  # with a mask or without, heads that share keys are copied out
    checkpointing: bool = False
    head: str = "chunked"
    output: int = 0
    accumulates: bool = False  # gradients stay from micro-batch to micro-batch
    rest: int = 0  # tokens of a step's second and last micro-batch, where that one is shorter: the first then meets no gradients
    optimizer: str = "adamw_torch_fused"
    kbit: bool = False
    cached_keys: bool = False  # the loop forgot use_cache=False
    fused_norms: bool = False  # kernels for norms and rotary positions that keep only their inputs (Liger, fms' foak)
    # adapters take their input in the computing format and keep it once (fast_lora.speed_up_lora, fms' foak)
    fused_adapters: bool = False
    shifted: bool = False  # the loss copies the logits without the last position (transformers before 4.50)
    early_upcast: bool = False  # the model gives float32 logits and forgets the others (transformers before 4.45)
    raw_loss: bool = False  # the loss does not lift logits to float32 itself (GPT-BigCode's own loss)
    in_place: bool = False  # a cross entropy that writes its gradient over the logits (Unsloth's and fms' foak)
    half: bool = False  # the 16 bits are fp16, not bf16
    ranks: int = 1  # processes that share the run, a device each
    split: bool = False  # the model is split over them (FSDP)
    evaluates: bool = False  # rows are held out
    answers: bool = False  # sample prompts are answered meanwhile
    input_grads: bool = False  # the embeddings' output asks for a gradient (enable_input_require_grads)

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    @property
    def compute(self) -> int:
        """Bytes of a product's result."""
        return self.autocast or self.base
