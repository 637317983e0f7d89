"""torch.compile, layer by layer: one compilation serves all layers of one make, where the whole model would take minutes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback


class CompileCallback(TrainerCallback):
    """Compiles the decoder's layers and tells what that cost: once after the first step, and again when new shapes cost more."""

    def __init__(self, base: Any, report: Any):
        self.report, self.told = report, 0.0
        for layer in layers(base):
            layer.compile()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        spent = seconds()
        if not self.told:
            self.report.note(f"torch.compile: the layers took {spent:.1f} s to compile, once.")
        elif spent > self.told + 1:
            self.report.note(f"torch.compile: {spent - self.told:.1f} s more, for new shapes.")
        else:
            return
        self.told = max(spent, 1e-9)


def layers(base: Any) -> list[torch.nn.Module]:
    """A decoder's layers, under whatever name the model has them: its longest list of modules."""
    lists = [module for module in base.modules() if isinstance(module, torch.nn.ModuleList)]
    return list(max(lists, key=len))


def seconds() -> float:
    """Spent on compiling by this process so far, the way there and the way back."""
    from torch._dynamo.utils import compilation_time_metrics

    return sum(
        sum(spent)
        for name, spent in compilation_time_metrics.items()
        if name.endswith(("compile_inner", "_backward_impl"))
    )
