"""Bases in 4 bits: their bytes against bitsandbytes' own tensors, and when they answer in them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studio import config, model
from studio.device import Device
from studio.memory.architecture import read_architecture
from studio.memory.overhead import ONEDNN, UNPACKING, cpu
from studio.memory.states import nf4_bytes
from studio.memory.studio_loop import studio_loop
from studio.talk import reference, room
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


def test_a_base_stands_in_its_bits_where_sixteen_do_not_fit(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QLoRA run and its base on a small device share one base in 4 bits; a merge still takes the 16-bit files."""
    run = order(tiny_model, rows(tmp_path / "rows.json"), "method.name=qlora", "training.max_steps=2")
    carry(run)
    both = [reference.resolve(run.id), reference.resolve(f"base:{run.id}")]
    assert room.size(both, True) < 0.8 * room.size(both)
    monkeypatch.setattr(room, "reserved_by_training", lambda: ("another training", 10**15))
    import torch

    from studio.worker.loaded import LoadedModels

    loaded_models = LoadedModels("cpu", torch.float32)
    tuned, base = (loaded_models.load(one) for one in both)
    assert len(loaded_models.bases) == 1
    for loaded_model in (tuned, base):
        assert any(type(layer).__name__ == "Linear4bit" for layer in loaded_model.batch.base_model.modules())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's table of maps")
def test_a_packed_base_keeps_its_file_only_in_16_bits(tmp_path: Path) -> None:
    """Embeddings in bf16 stay views of a bf16 file, whose pages stay in memory; the estimate says the same."""
    import torch

    from studio.methods.qlora import QLoRA
    from studio.worker import random_model

    folder = random_model.write(tmp_path / "model", "HuggingFaceTB/SmolLM2-135M", num_hidden_layers=1, vocab_size=4096)
    method, facts = QLoRA(), model.facts(folder)
    parts = read_architecture(facts)
    numbers = sum(linear.in_features * linear.out_features for layer in parts.layers for linear in layer.linears)
    around, processor = {}, Device(kind="cpu", name="CPU", memory=16 * 2**30, free=16 * 2**30)
    for dtype, precision in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        loaded = method.load(folder, dtype)
        mapped = _mapped(folder)
        assert mapped == 0 if dtype == torch.float32 else mapped > 1.9 * numbers
        ordered = config.build(
            {
                "model": str(folder),
                "data": {"train": "none.json"},
                "method": method,
                "training": {"precision": precision},
            }
        )
        loop = studio_loop(ordered, facts, processor, None, method.footprint(facts), False)
        around[precision] = cpu(loop, parts, method.footprint(facts)).fixed
        del loaded
    left = UNPACKING + numbers // 2
    assert around["bf16"] - around["fp32"] == 2 * numbers + max(0, ONEDNN - left), "the kernels find their place there"


def _mapped(folder: Path) -> int:
    """Bytes of this process's memory that are pages of files in a folder."""
    sizes, name = 0, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            name = words[-1]
        elif words[0] == "Rss:" and name.startswith(str(folder)):
            sizes += 1024 * int(words[1])
    return sizes
