"""The real trainer where memory is short. STUDIO_SHORT_OF: `tokens`, torch's own error of a full card beyond so many
tokens at once; `space`, its address space is bounded when the first batch comes, so that the allocator itself
fails.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from studio.run import Run
from studio.worker import train
from studio.worker.trainer import StudioTrainer

MOST = 2048  # tokens of a piece
SPACE = 200_000_000  # bytes beyond what the trainer holds when its first batch comes

_loss = StudioTrainer.micro_batch_loss


def _bounded(self: StudioTrainer, model: Any, piece: dict[str, Any]) -> torch.Tensor:
    if os.environ["STUDIO_SHORT_OF"] == "space":
        if model.training and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + SPACE, held + SPACE))
    elif model.training and piece["input_ids"].numel() > MOST:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB"
        )
    return _loss(self, model, piece)


StudioTrainer.micro_batch_loss = _bounded

if __name__ == "__main__":
    sys.exit(train.main(Run(Path(sys.argv[1]))))
