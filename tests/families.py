"""What is proved of each model family (transformers' model_type), for the tests that prove it and for the README's
table.

Whoever adds a family here adds a test case with it: every test named below is parametrized over its line.
"""

from __future__ import annotations

from studio.base import proved
from studio.export import gguf_families

ROWS = proved.PACKED  # packed, and padded without a mask: tests/worker/test_families.py
METHODS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "gpt2", "gpt_neox")  # tests/methods/test_life.py
GGUF = tuple(gguf_families.ARCHITECTURES)  # tests/worker/test_gguf_llama_cpp.py
MERGED = (*METHODS, "gemma2", "gemma3_text", "mixtral")  # tests/worker/test_export.py
LEAVES = (
    "llama",
    "qwen2",
    "qwen3",
    "gemma3_text",
    "mistral",
    "phi3",
    "gpt2",
)  # from the order to an Ollama folder: tests/e2e/test_leaves.py
ALL = sorted({*ROWS, *METHODS, *GGUF, *MERGED, *LEAVES})
