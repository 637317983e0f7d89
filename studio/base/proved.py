"""The families for which a way of computing was held against transformers. Any other is left to transformers.

And those that lack one there.
"""

from __future__ import annotations

# packed and padded rows, against eager attention, row by row (tests/worker/test_families.py)
PACKED = frozenset(
    (
        "llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma3_text", "phi", "phi3", "gpt_neox", "gpt2",
        "smollm3", "granite", "olmo", "olmo2", "olmo3", "starcoder2", "cohere", "cohere2", "glm", "glm4", "helium",
        "seed_oss", "hunyuan_v1_dense", "arcee", "persimmon", "ernie4_5", "apertus", "bitnet", "mixtral",
        "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "ernie4_5_moe", "phimoe"
    )
)  # fmt: skip
# whose layers transformers does not checkpoint (tests/worker/test_families.py)
NOT_CHECKPOINTED = frozenset(("cpmant", "ctrl", "gpt_neox_japanese", "jetmoe", "openai-gpt", "reformer"))
# fused kernels, against transformers' forward (tests/worker/fused_cases.py)
FUSED = frozenset(
    ("llama", "mistral", "ministral", "qwen2", "qwen3", "smollm3", "granite", "gemma", "gemma2", "gemma3_text")
)
