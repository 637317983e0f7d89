"""The estimate's bytes of 4-bit weights against bitsandbytes' own tensors."""

from __future__ import annotations

import pytest

from studio.memory.states import nf4_bytes


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
