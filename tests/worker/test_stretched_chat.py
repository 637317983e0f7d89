"""Models whose positions follow the length read (LongRoPE, dynamic NTK): the chat answers as transformers' generate,
whoever writes beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from studio.talk.reference import of_base
from studio.worker.loaded import LoadedModels
from tests.worker.test_generate import write
from tests.worker.test_gguf_llama_cpp import made

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 2.0],
    "long_factor": [1.0, 2.0, 3.0, 5.0],
    "original_max_position_embeddings": 40,
}
ROPES: dict[str, dict[str, Any]] = {
    "phi3": LONGROPE,  # reads all anew at the switch
    "mistral": LONGROPE,  # goes on with both kinds of keys
    "llama": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
}
QUESTIONS = [
    "Short.",
    "One that lies beyond the switch from its first token on, "
    "for it has so many words that no one counts them all to the end of it.",
]


@pytest.mark.parametrize("kind", ROPES)
def test_as_transformers_generates(kind: str, tmp_path: Path) -> None:
    folder = made(
        tmp_path / "model",
        kind,
        rope_parameters=ROPES[kind],
        max_position_embeddings=256 if ROPES[kind] is LONGROPE else 40,
        **({"original_max_position_embeddings": 40} if kind == "phi3" else {}),
    )
    loaded_model = LoadedModels("cpu", torch.float32).load(of_base(folder))
    loaded_model.end_ids, loaded_model.context_length = frozenset(), 256
    wanted = []
    for answer in write(loaded_model, QUESTIONS, max_tokens=1):
        ids = torch.tensor([answer.prompt_ids])
        theirs = LoadedModels("cpu", torch.float32).load(of_base(folder)).model
        made_ids = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=48,
            eos_token_id=-1,
            pad_token_id=0,
        )
        wanted.append(made_ids[0, ids.shape[1] :].tolist())
    assert [answer.output_ids for answer in write(loaded_model, QUESTIONS, max_tokens=48)] == wanted, "side by side"
    assert [answer.output_ids for answer in write(loaded_model, QUESTIONS[::-1], max_tokens=48)] == wanted[::-1]


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 0.5), (4, 0.9), (0, 0.7), (2, 1.0)])
def test_top_k_then_top_p_as_transformers(top_k: int, top_p: float) -> None:
    """The tokens that can be drawn are those that transformers' warpers leave, in their order."""
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    from studio.worker.sampling import Sampling, choose

    logits = torch.tensor([2.0, 1.9, 1.2, 1.1, 0.3, -1.0])
    left = logits[None]
    if top_k:
        left = TopKLogitsWarper(top_k)(None, left)
    if top_p < 1:
        left = TopPLogitsWarper(top_p)(None, left)
    random = torch.Generator().manual_seed(0)
    drawn = {choose(logits, Sampling(top_k=top_k, top_p=top_p), [], random) for _ in range(400)}
    assert drawn == set(left[0].isfinite().nonzero().flatten().tolist())


def test_special_tokens_that_were_trained_are_shown(tiny_model: Path) -> None:
    from dataclasses import replace

    from studio.worker.loaded import LoadedModel

    loaded_model = LoadedModels("cpu", torch.float32).load(of_base(tiny_model))
    assert loaded_model.decode([0, 42, 1]) == "H"
    trained = LoadedModel(replace(loaded_model.reference, manifest={"special_answers": [0]}), loaded_model.model)
    assert trained.decode([0, 42, 1]) == "<|endoftext|>H"
