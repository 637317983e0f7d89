"""Sizes in which the trainer's kernels work, and with which the estimate counts: numbers only, no torch."""

from __future__ import annotations

IGNORE_INDEX = -100  # label of a position that is read and not trained on: torch's cross entropy skips it
PAD_TO_MULTIPLE_OF = 64  # of a micro-batch's width: few shapes, as the CPU compiles a kernel for each new one

# worker/head.py, the chunked head loss
LOGIT_CHUNK_BYTES = {"cpu": 2**25, "cuda": 2**29}  # float32 logits at once: what fits a CPU's caches; what fills a GPU
CHUNKS_OF_A_CARD = 48  # of a card's memory so many chunks: 128 MiB on 8 GB, 256 on 16 and 24
HEAD_GRAD_POSITIONS = 512  # positions whose logit gradients are multiplied with the hidden states at once

# worker/adamw.py, bf16 weights with stochastic rounding
ADAMW_CHUNK_SIZE = 2**22  # weights updated at once: keeps the float32 copies small

# worker/attention.py, packed rows on a CPU
ROW_MULTIPLE_OF = (
    16  # tokens to which a row is padded in 16 bits: each length has kernels of its own, 3 MB kept for good
)
MATMUL_ATTENTION_MAX_TOKENS = 1024  # longest row whose whole score matrix is formed: 1024² × 2 bytes a head

SAMPLE_MAX_NEW_TOKENS = 96  # of an answer to a sample prompt (worker/samples.py)
EVAL_PROMPTS = 64  # held-out prompts that are answered at an evaluation, where a stage learns from its own answers


def logit_chunk_bytes(kind: str, memory: int = 0) -> int:
    """Bytes of float32 logits that exist at once. kind: torch's type of the device; memory: of a card, in bytes."""
    most = LOGIT_CHUNK_BYTES.get(kind, 2**27)
    if kind == "cpu" or not memory:
        return most
    return min(most, 1 << max(26, (memory // CHUNKS_OF_A_CARD).bit_length() - 1))


def padded_width(tokens: int) -> int:
    """The width to which a row, or a micro-batch of packed rows, is padded."""
    return -(-tokens // PAD_TO_MULTIPLE_OF) * PAD_TO_MULTIPLE_OF


SCORE_FILE = "score.safetensors"  # the head of a reward model, in its result
