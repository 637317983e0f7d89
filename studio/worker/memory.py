"""Memory that is no longer needed, given back to the device."""

from __future__ import annotations

import gc

import torch


def give_back() -> None:
    """Let go of what nothing refers to any more, and have torch's allocator return its empty blocks: other processes see them free."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
