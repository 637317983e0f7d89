"""What an order asks for that nothing would come of, or that would fail only once the model is loaded: refused before there is a run."""

from __future__ import annotations

import difflib
import importlib.util

from studio.config import RunConfig
from studio.errors import OrderError

OPTIMIZERS: dict[str, str] = {  # of transformers, those that need no more than their name -> the package that brings them
    **dict.fromkeys(("adamw", "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"), "torch"),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "ademamix", "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_8bit", "paged_adamw_32bit",
                     "paged_ademamix_8bit", "paged_ademamix_32bit", "paged_lion_8bit", "paged_lion_32bit", "rmsprop_bnb", "rmsprop_bnb_8bit",
                     "rmsprop_bnb_32bit"), "bitsandbytes"),
    **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), "torchao"),
    **dict.fromkeys(("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"), "schedulefree"),
    "stable_adamw": "optimi", "grokadamw": "grokadamw",
}  # fmt: skip
ON_EVALUATION = ("keep_best", "early_stopping", "sample_prompts")


def refuse(config: RunConfig) -> None:
    """Raise OrderError for an option that would be ignored, or an optimizer that is not there."""
    training = config.training
    for key in ON_EVALUATION:
        if not config.data.eval and getattr(training, key):
            raise OrderError(f"training.{key} acts at evaluations, and with data.eval {config.data.eval or 0} there are none.",
                             f"Hold rows out (data.eval: 0.05), or leave training.{key} out.", f"training.{key}")
    method = config.method
    if getattr(method, "quantization", None) == "int8" and getattr(method, "compute", "auto") != "auto":
        raise OrderError(f"method.compute is {method.compute}, but weights held in int8 are multiplied in int8.",
                         "Leave method.compute at auto, or hold the base in nf4.", "method.compute")
    _refuse_optimizer(training.optimizer)


def _refuse_optimizer(name: str) -> None:
    if name == "auto":
        return
    if name not in OPTIMIZERS:
        near = difflib.get_close_matches(name, OPTIMIZERS, n=1, cutoff=0.5)
        raise OrderError(f"There is no optimizer {name!r} here.", f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(OPTIMIZERS)}.",
                         "training.optimizer")
    if importlib.util.find_spec(OPTIMIZERS[name]) is None:
        raise OrderError(f"The optimizer {name} needs the package {OPTIMIZERS[name]}, which is not installed.",
                         "Install it, or set training.optimizer to auto.", "training.optimizer")
