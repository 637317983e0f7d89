"""Bases in 4 bits: their bytes against bitsandbytes' own tensors, and when they answer in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.home import PROJECT
from studio.memory.states import nf4_bytes
from studio.methods.qlora import QLoRA
from studio.talk import reference, room
from studio.worker import random_model
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
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_packed_base_lets_go_of_its_file(tmp_path: Path, dtype: torch.dtype) -> None:
    """Embeddings in bf16 would stay views of a bf16 file, all of whose pages then count as this process's memory."""
    folder = random_model.write(tmp_path / "model", "HuggingFaceTB/SmolLM2-135M", num_hidden_layers=1, vocab_size=4096)
    loaded = QLoRA().load(folder, dtype)
    assert _mapped(folder) == 0
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    torch.testing.assert_close(loaded.model.embed_tokens.weight, plain.model.embed_tokens.weight)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight, "still tied"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's mark")
def test_what_was_dropped_is_no_peak() -> None:
    script = """
from studio import memory_peak
passed_by = bytearray(b"x") * 400_000_000
del passed_by
high = memory_peak.resident_peak()
memory_peak.begin_anew()
low = memory_peak.resident_peak()
kept = bytearray(b"x") * 100_000_000
print(high - low > 350_000_000, memory_peak.resident_peak() - low > 90_000_000)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert told.stdout.split() == ["True", "True"]


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
