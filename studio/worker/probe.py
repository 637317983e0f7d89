"""The probe: the largest piece of the data forward and backward, and one held-out piece, before a long run begins.

A run that would die late for lack of memory dies at once, with its cause. Nothing is left behind: random states are put back, gradients
dropped, no step made.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from studio.errors import DeviceError
from studio.worker.batches import Pieces, put, trained
from studio.worker.loss import loss, plain

CPU_LIMIT = 6e12  # products (4 × weights × tokens) that a CPU does within a minute; beyond, the probe would take longer than it is worth
NO_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Probe(TrainerCallback):
    """Runs when the Trainer has everything in place, before the first evaluation and step; after a resume too, whose order may be another."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer, began = self.trainer, time.monotonic()
        piece = self.largest()
        size = sum(weight.numel() for weight in trainer.model.parameters())
        if args.device.type == "cpu" and 4 * size * _tokens(piece) > CPU_LIMIT:
            trainer.report.note("The probe was left out: on this CPU it would take more than a minute.")
            return
        trainer.report.phase("probing")
        try:
            with untouched(trainer.model_wrapped):
                self.agree()
                trainer.piece_loss(trainer.model_wrapped.train(), piece).backward()
                if trainer.eval_dataset is not None:
                    with torch.no_grad():
                        trainer.piece_loss(trainer.model_wrapped.eval(), max(trainer.get_eval_dataloader(), key=_tokens))
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
                raise
            raise DeviceError(f"The device ran out of memory on the largest batch ({_tokens(piece)} tokens), before the first step.",
                              "Use a smaller training.batch_size with more accumulation, training.checkpointing: true, or a shorter data.max_length.",
                              "training.batch_size", "memory") from error
        trainer.report.note(f"Probe: the largest batch ({_tokens(piece)} tokens) fits; {time.monotonic() - began:.1f} s.")
        trainer.report.phase("training")

    def largest(self) -> dict[str, Any]:
        """The widest piece that the longest rows make."""
        rows = self.trainer.train_dataset.longest(self.trainer.effective)
        return max(Pieces(self.trainer.layout)(rows), key=_tokens)

    def agree(self) -> None:
        """Hold our loss and layout against the model's own way on two short rows; where they differ, take the model's way."""
        trainer = self.trainer
        model = trainer.model_wrapped.eval()
        rows = [{key: list(row[key][:48]) for key in ("input_ids", "labels")} for row in trainer.train_dataset.first(2)]
        for row in rows:
            row["labels"] = list(row["input_ids"])
        count = sum(trained(row) for row in rows)
        with torch.no_grad():
            own = sum(self._loss(model, put([row], False), "full") for row in rows) / max(1, count)
            ours = self._loss(model, put(rows, trainer.layout.laid), trainer.kind) / max(1, count)
        near = 1e-3 if trainer.dtype == torch.float32 else 3e-2
        if abs(own - ours) <= near * max(1.0, abs(own)):
            return
        trainer.report.note(f"This model computes differently when rows share a batch or the head is cut ({ours:.4f} instead of {own:.4f}): "
                            "it is trained the plain way, slower and with more memory.", "warning")
        trainer.kind, trainer.layout = "full", trainer.layout._replace(laid=False)
        if hasattr(plain(model), "set_attn_implementation"):
            plain(model).set_attn_implementation("sdpa")

    def _loss(self, model: Any, piece: dict[str, Any], kind: str) -> float:
        return loss(model, self.trainer._prepare_inputs(piece), kind, self.trainer.dtype).item()


def _tokens(piece: dict[str, Any]) -> int:
    return piece["input_ids"].numel()


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Put the random states back and drop the gradients afterwards."""
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    state = random.getstate()
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            random.setstate(state)
            model.zero_grad(set_to_none=True)
