"""How a training loop computes: number formats, kernels, head, batch. The defaults are a plain loop's on CUDA."""

from __future__ import annotations

from typing import NamedTuple


class TrainingLoop(NamedTuple):
    """One micro-batch of a training loop, ours (studio_loop.py) or another program's. Item sizes: bytes of a number."""

    device: str = "cuda"
    batch: int = 1
    length: int = 1024  # batch × length: tokens of the padded micro-batch
    longest_row: int = 1024  # of the rows that are packed into one
    labels: int | None = None  # positions with a label; None: all
    weight_itemsize: int = 2  # of the base as it is held
    hidden_itemsize: int = 2  # of the residual stream
    autocast_itemsize: int = 2  # of the format that products are computed in; 0: autocast is off
    attention: str = "sdpa"  # sdpa, flash, eager, packed (worker/attention.py)
    mask: bool = True  # an attention mask is given
    repeats_kv: bool = True  # keys and values that heads share are copied out (repeat_kv)
    checkpointing: bool = False
    kept_layers: int = 0  # of a checkpointed model, the last ones, which keep their activations all the same
    logit_chunk: int = 0  # bytes of float32 logits at once; 0: the device's usual
    head: str = "chunked"  # chunked (ours), fused (Liger's: chunks of the hidden size), full
    keeps_output: int = 0  # bytes a logit that the caller keeps holding during backward
    accumulates: bool = False  # gradients stay from micro-batch to micro-batch
    last_length: int = 0  # tokens of a step's second and last micro-batch, where it is shorter than the first
    optimizer: str = "adamw_torch_fused"
    kbit: bool = False  # peft's prepare_model_for_kbit_training: norms, embeddings and head in float32
    cached_keys: bool = False  # the loop forgot use_cache=False
    fused_norms: bool = False  # norms and rotary positions in kernels that keep only their inputs (Liger, fms' foak)
    fused_feed_forward: bool = False  # act(gate) · up in a kernel that keeps both factors alone (Liger)
    fused_adapters: bool = False  # adapters keep their input once, in the computing format (foak)
    adapters_in_place: bool = False  # and their product is added inside the base's result (worker/fast_lora.py)
    shifted: bool = False  # the loss copies the logits without the last position (transformers before 4.50)
    early_upcast: bool = False  # the model gives float32 logits and forgets the others (transformers before 4.45)
    loss_in_logits_dtype: bool = False  # the loss does not lift logits to float32 itself (GPT-BigCode's own loss)
    in_place: bool = False  # a cross entropy that writes its gradient over the logits (Unsloth's and fms' foak)
    fp16: bool = False  # the 16 bits are fp16, not bf16
    world_size: int = 1  # processes that share the run, a device each
    fsdp: bool = False  # the model is split over them
    evaluates: bool = False  # rows are held out
    brake: int = 0  # tokens of the brake's batch at the end of a step (worker/keep_general.py)
    beside: int = 0  # bytes of another model that is only asked
    writes: int = 0  # answers that the model writes at once, each up to longest_row tokens with its prompt
    samples: int = 0  # sample prompts that are answered meanwhile
    input_grads: bool = False  # the embeddings' output asks for a gradient (enable_input_require_grads)

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    @property
    def compute_itemsize(self) -> int:
        """Bytes of a product's result."""
        return self.autocast_itemsize or self.weight_itemsize
