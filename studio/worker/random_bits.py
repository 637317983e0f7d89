"""Quick uniform random bits: a CPU draws numbers one by one, so four 16-bit numbers are cut from each 64-bit draw.

Apple's GPU does not draw all 64 bits.
"""

from __future__ import annotations

import torch


def random_int16(count: int, device: torch.device, generator: torch.Generator | None = None) -> torch.Tensor:
    """int16 [count], uniform over all its values. generator: torch's default one of the device where left out."""
    if device.type != "cpu":
        return torch.randint(-(2**15), 2**15, (count,), dtype=torch.int32, device=device, generator=generator).short()
    draws = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    return draws.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
