"""Activation checkpointing of as many layers as needed: transformers covers all of them, or every n-th."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from studio.worker.layer_compile import decoder_layers


class FirstLayersOnly(TrainerCallback):
    """Leaves the layers behind the first `count` their activations: they are the first to go in backward."""

    def __init__(self, base: Any, count: int):
        self.base, self.count = base, count

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer has switched all layers on by now."""
        for layer in decoder_layers(self.base)[self.count :]:
            layer.gradient_checkpointing = False
