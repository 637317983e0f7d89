"""A decoder's layers one by one: compiled, or checkpointed up to as many as memory asks for."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback


def decoder_layers(base: Any) -> list[torch.nn.Module]:
    """A decoder's layers, whatever the model calls them: its longest ModuleList."""
    return list(max((module for module in base.modules() if isinstance(module, torch.nn.ModuleList)), key=len))


class FirstLayersOnly(TrainerCallback):
    """Checkpoints the first `count` layers; transformers covers all, or every n-th. The last ones go first in backward,
    so it is they that keep their activations.
    """

    def __init__(self, base: Any, count: int):
        self.base, self.count = base, count

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer has switched all layers on by now."""
        for layer in decoder_layers(self.base)[self.count :]:
            layer.gradient_checkpointing = False


class CompileCallback(TrainerCallback):
    """torch.compile of each layer: one compilation serves all layers of a kind; the whole model would take minutes.

    Notes the seconds after the first step, and again when new shapes cost more.
    """

    def __init__(self, base: Any, report: Any):
        self.report, self.reported_seconds = report, 0.0
        for layer in decoder_layers(base):
            layer.compile()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds = compile_seconds()
        if not self.reported_seconds:
            self.report.note(f"torch.compile: the layers took {seconds:.1f} s to compile, once.")
        elif seconds > self.reported_seconds + 1:
            self.report.note(f"torch.compile: {seconds - self.reported_seconds:.1f} s more, for new shapes.")
        else:
            return
        self.reported_seconds = max(seconds, 1e-9)


def compile_seconds() -> float:
    """Seconds that this process has spent on compiling forward and backward so far."""
    from torch._dynamo.utils import compilation_time_metrics

    return sum(
        sum(seconds)
        for name, seconds in compilation_time_metrics.items()
        if name.endswith(("compile_inner", "_backward_impl"))
    )
