"""Sizes in which the trainer's kernels work, and with which the estimate counts: numbers only, no torch."""

from __future__ import annotations

IGNORE_INDEX = -100  # label of a position that is read and not trained on: torch's cross entropy skips it
PAD_TO_MULTIPLE_OF = 64  # micro-batches are as wide as a multiple of this: few shapes, because a new one costs the CPU a newly compiled kernel

# worker/loss.py, the chunked head loss
LOGIT_CHUNK_BYTES = {
    "cpu": 2**25,
    "cuda": 2**29,
}  # float32 logits that exist at once: what stays in a CPU's caches; what fills a GPU
HEAD_GRAD_POSITIONS = 512  # whose gradients wait for one product with their hidden states, where the head is trained

# worker/adamw.py, bf16 weights rounded at random
ADAMW_CHUNK_SIZE = 2**22  # stepped at once: what exists in float32 meanwhile stays small

# worker/attention.py, rows packed into one on a CPU
MATMUL_ATTENTION_MAX_TOKENS = 1024  # up to which a row's square of scores is formed: 1024² × 2 bytes a head

SAMPLE_MAX_NEW_TOKENS = 96  # of an answer to a sample prompt (worker/samples.py)


def padded_width(tokens: int) -> int:
    """The width that a row, or a micro-batch of packed rows, is filled up to."""
    return -(-tokens // PAD_TO_MULTIPLE_OF) * PAD_TO_MULTIPLE_OF
