"""Rotary frequencies that follow the longest row read (LongRoPE, dynamic NTK): each row is trained as alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from studio.kernels import IGNORE_INDEX
from studio.methods import METHODS
from studio.tokens import Encoder
from studio.worker import attention, dynamic_rope
from studio.worker.log_probs import log_probs, sums_by_sequence
from studio.worker.loss import unwrap
from studio.worker.packing import BOOKKEEPING, collate
from tests.worker.carrying import carry, order
from tests.worker.test_gguf_llama_cpp import made
from tests.worker.test_stretched_chat import LONGROPE, ROPES

LONG, SHORT = "many words beyond the switch, " * 2, "few"


@pytest.fixture(params=["phi3", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kind = request.param
    phi = {"original_max_position_embeddings": 40} if kind == "phi3" else {}
    return made(
        tmp_path / "model",
        kind,
        rope_parameters=ROPES[kind],
        max_position_embeddings=256 if ROPES[kind] is LONGROPE else 40,
        **phi,
    )


def test_held_out_rows_are_measured_as_alone(folder: Path, home: Path, tmp_path: Path) -> None:
    texts = [LONG, SHORT, LONG + LONG, SHORT] * 2
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": text}]}
        for n, text in enumerate(texts)
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    held_out = tmp_path / "held_out.json"
    held_out.write_text(json.dumps(rows[::-1]))
    run = order(folder, file, "training.max_steps=2", "training.batch_size=4", f"data.eval={held_out}")
    measured = [event["loss"] for event in carry(run) if event["kind"] == "eval"]
    encoder, losses, count = Encoder.from_order(run.config.data, folder), 0.0, 0
    for row in rows:
        encoded = encoder.encode(row)
        plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
        labels = torch.tensor(encoded.labels[1:])
        logits = plain(torch.tensor([encoded.ids])).logits[0, :-1]
        losses += float(cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum").detach())
        count += int((labels != IGNORE_INDEX).sum())
    assert measured[0] == pytest.approx(losses / count, rel=2e-5)


@pytest.mark.parametrize(("packed", "method"), [(True, "lora"), (False, "lora"), (False, "prefix"), (False, "prompt")])
def test_answers_of_a_pair_on_both_sides_of_the_switch(packed: bool, method: str, folder: Path) -> None:
    """Log-probabilities and gradients of every sequence, beside others and padded, as alone."""
    virtual = {} if method == "lora" else {"virtual_tokens": 4}
    lengths = [(30, 70), (41, 5), (36, 37), (90, 64)]
    random = torch.Generator().manual_seed(0)
    sequences = [torch.randint(3, 300, (length,), generator=random).tolist() for pair in lengths for length in pair]
    rows = [
        {"input_ids": one + other, "labels": [IGNORE_INDEX] + one[1:] + [IGNORE_INDEX] + other[1:], "second": len(one)}
        for one, other in zip(sequences[::2], sequences[1::2], strict=True)
    ]
    attention.register()
    kernel = "sdpa" if method == "prefix" else attention.PACKED_ATTENTION
    plain, ours = (
        METHODS[method](**virtual)
        .wrap(change(AutoModelForCausalLM.from_pretrained(folder, attn_implementation=name, dtype=torch.float32)))
        .eval()
        for name, change in (("eager", lambda base: base), (kernel, dynamic_rope.each_as_alone))
    )
    trained = [weight for weight in plain.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight, same in zip(trained, (w for w in ours.parameters() if w.requires_grad), strict=True):
            same.copy_(torch.nn.init.normal_(weight, 0.0, 0.1, generator=random))
    piece = collate(rows, packed)
    mine = sums_by_sequence(log_probs(ours, _inputs(piece), "chunked", torch.float32)[0], piece["answer_lengths"])
    theirs = torch.stack([_alone(plain, ids) for ids in sequences])
    torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-5)
    slopes = torch.randn(len(sequences), generator=random)
    (mine * slopes).sum().backward()
    (theirs * slopes).sum().backward()
    for weight, same in zip(trained, (w for w in ours.parameters() if w.requires_grad), strict=True):
        assert (same.grad - weight.grad).norm() <= 1e-3 * weight.grad.norm()


def _inputs(piece: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in piece.items() if key not in BOOKKEEPING} | {"use_cache": False}


def _alone(model: Any, ids: list[int]) -> torch.Tensor:
    for module in unwrap(model).modules():
        if hasattr(module, "rope_type") and hasattr(module, "max_seq_len_cached"):
            module.__init__(module.config)  # dynamic NTK goes on from the rows before
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -len(ids) :]
    return -cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum")
