"""The real trainer on a device that holds at most so many tokens at once: torch's own error beyond, as on a card that is full."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from studio.run import Run
from studio.worker import train
from studio.worker.trainer import StudioTrainer

MOST = 2048  # tokens of a piece

_loss = StudioTrainer.piece_loss


def _bounded(self: StudioTrainer, model: Any, piece: dict[str, Any]) -> torch.Tensor:
    if model.training and piece["input_ids"].numel() > MOST:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB")
    return _loss(self, model, piece)


StudioTrainer.piece_loss = _bounded

if __name__ == "__main__":
    sys.exit(train.main(Run(Path(sys.argv[1]))))
