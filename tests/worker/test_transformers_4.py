"""Merged models in transformers 4.55, in an environment of its own: the same ids and greedy tokens as in the version
that is installed here.

Stretched positions too; what is trained for real is held against it in tests/e2e/test_leaves.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.export.proof import TEXTS
from studio.talk.reference import resolve
from studio.worker.export import merged
from tests.readers import Transformers4, by_transformers
from tests.worker.test_export import trained
from tests.worker.test_gguf_llama_cpp import QUESTIONS, ROPES, made

KINDS: list[tuple[str, dict[str, Any]]] = [
    (kind, {}) for kind in ("llama", "qwen2", "qwen3", "gemma3_text", "mistral", "phi3", "gpt2")
]
KINDS += [
    (kind, {"rope_parameters": rope, **({"original_max_position_embeddings": 128} if kind == "phi3" else {})})
    for kind, rope in ROPES.values()
]


@pytest.mark.rare
@pytest.mark.parametrize(("kind", "changes"), KINDS, ids=[*(kind for kind, changes in KINDS if not changes), *ROPES])
def test_text_for_text(
    kind: str, changes: dict[str, Any], transformers_4: Transformers4, home: Path, tmp_path: Path
) -> None:
    reference = resolve(
        trained(
            made(tmp_path / "base", kind, **changes),
            modules_to_save=["lm_head"] if kind == "llama" and not changes else [],
        ).id
    )
    merged(reference, tmp_path / "merged")
    assert transformers_4(tmp_path / "merged", QUESTIONS, 24, TEXTS) == by_transformers(
        tmp_path / "merged", QUESTIONS, 24, TEXTS
    )
