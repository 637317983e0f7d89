"""Bases in 4 bits: their bytes against bitsandbytes' own tensors, and when they answer in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.memory.states import nf4_bytes
from studio.talk import chat, voice
from tests.worker.carrying import carry, order, rows


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(64, 64), (576, 1536), (1000, 192)])
def test_bytes_are_those_of_bitsandbytes(shape: tuple[int, int], double: bool) -> None:
    import torch
    from bitsandbytes.functional import quantize_4bit
    packed, state = quantize_4bit(torch.randn(shape), blocksize=64, compress_statistics=double, quant_type="nf4")
    tensors = [packed, state.absmax, state.code]
    if double:
        tensors += [state.state2.absmax, state.state2.code, state.offset]
    assert nf4_bytes(shape[0] * shape[1], double) == sum(tensor.nbytes for tensor in tensors)


def test_a_base_stands_in_its_bits_where_sixteen_do_not_fit(home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A QLoRA run and its base on a small device: one base in 4 bits for both; a merge goes into the 16 bits of the files all the same."""
    run = order(tiny_model, rows(tmp_path / "rows.json"), "method.name=qlora", "training.max_steps=2")
    carry(run)
    both = [voice.voice(run.id), voice.voice(f"base:{run.id}")]
    assert voice.size(both, True) < 0.8 * voice.size(both)
    monkeypatch.setattr(chat, "claimed", lambda: ("another training", 10**15))
    import torch

    from studio.worker.speakers import Speakers
    speakers = Speakers("cpu", torch.float32)
    tuned, base = (speakers.load(one) for one in both)
    assert len(speakers.bases) == 1
    for speaker in (tuned, base):
        assert any(type(layer).__name__ == "Linear4bit" for layer in speaker.batch.inner.modules())
