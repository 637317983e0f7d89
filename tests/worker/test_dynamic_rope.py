"""Rotary frequencies that follow the longest row read (LongRoPE, dynamic NTK): each row is trained as alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from studio import model
from studio.kernels import IGNORE_INDEX
from studio.tokens import Encoder
from studio.worker.packing import Layout, group_rows
from tests.worker.carrying import carry, order
from tests.worker.test_gguf_llama_cpp import made
from tests.worker.test_stretched_chat import ROPES

LONG, SHORT = "many words beyond the switch, " * 2, "few"


@pytest.fixture(params=ROPES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kind = request.param
    phi = {"original_max_position_embeddings": 40} if kind == "phi3" else {}
    return made(
        tmp_path / "model", kind, rope_parameters=ROPES[kind], max_position_embeddings=256 if phi else 40, **phi
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


@pytest.mark.parametrize("packed", [True, False])
def test_rows_beyond_the_switch_are_alone(packed: bool) -> None:
    rows = [{"input_ids": [1] * length, "labels": [1] * length} for length in (10, 90, 40, 41, 12)]
    groups = group_rows(rows, Layout(packed, 256, 8, rope_switch=40))
    lengths = [[len(row["input_ids"]) for row in group] for group in groups]
    assert sorted(map(sorted, lengths)) == [[10, 12, 40], [41], [90]]


def test_the_switch_is_read_from_config_json(folder: Path) -> None:
    assert model.facts(folder).rope_switch == 40
