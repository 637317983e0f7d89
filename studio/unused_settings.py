"""Settings that would do nothing beside the others of an order: they are refused, never ignored."""

from __future__ import annotations

from collections.abc import Iterator

from studio.config import RunConfig
from studio.errors import OrderError
from studio.methods.virtual_tokens import VirtualTokens

ON_EVALUATION = ("keep_best", "early_stopping", "sample_prompts")


def refuse(config: RunConfig) -> None:
    """Raise OrderError for a setting that would be ignored."""
    for error in (*_on_evaluation(config), *_of_evaluation(config), *_of_method(config), *_beside_another(config)):
        raise error


def _on_evaluation(config: RunConfig) -> Iterator[OrderError]:
    for key in ON_EVALUATION:
        if not config.data.eval and getattr(config.training, key):
            yield OrderError(
                f"training.{key} acts at evaluations, and with data.eval {config.data.eval or 0} there are none.",
                f"Hold rows out (data.eval: 0.05), or leave training.{key} out.",
                f"training.{key}",
            )


def _of_evaluation(config: RunConfig) -> Iterator[OrderError]:
    if config.evaluation is None:
        return
    if config.stage.scores:
        yield OrderError(
            "evaluation asks for answers, and a reward model writes none.",
            "Leave it out: the accuracy on held-out pairs is measured in any case.",
            "evaluation",
        )
    if config.place.remote:
        yield OrderError(
            "evaluation follows a training on this computer, and this run is for another one.",
            "Leave it out, and evaluate the run when its result is here: python -m studio eval RUN.",
            "evaluation",
        )
    if not config.data.eval:
        yield OrderError(
            f"evaluation asks held-out questions, and with data.eval {config.data.eval or 0} there are none.",
            "Hold rows out (data.eval: 0.05), or leave evaluation out.",
            "evaluation",
        )


def _of_method(config: RunConfig) -> Iterator[OrderError]:
    method = config.method
    if getattr(method, "quantization", None) == "int8" and (compute := getattr(method, "compute", "auto")) != "auto":
        yield OrderError(
            f"method.compute is {compute}, but weights held in int8 are multiplied in int8.",
            "Leave method.compute at auto, or hold the base in nf4.",
            "method.compute",
        )
    text, starts_from_it = getattr(method, "text", VirtualTokens.START), getattr(method, "init", "text") == "text"
    if text != VirtualTokens.START and (getattr(method, "projection", False) or not starts_from_it):
        other = f"method.init is {method.init}" if not starts_from_it else "a projection starts at random"
        yield OrderError(
            f"method.text is {text!r}, but {other}.",
            "Leave method.text out, or set method.init to text, without a projection.",
            "method.text",
        )


def _beside_another(config: RunConfig) -> Iterator[OrderError]:
    data, training = config.data, config.training
    if data.overlap and data.too_long != "split":
        yield OrderError(
            f"data.overlap is {data.overlap}, but with data.too_long {data.too_long} no row is split.",
            "Set data.too_long to split, or leave data.overlap out.",
            "data.overlap",
        )
    if config.model.revision and config.model.kind != "hub":
        yield OrderError(
            f"model.revision is {config.model.revision}, but {config.model.source} is not from the Hub.",
            "Leave model.revision out.",
            "model.revision",
        )
    if training.checkpointing is False and training.checkpointed_layers not in ("auto", 0):
        yield OrderError(
            f"training.checkpointed_layers is {training.checkpointed_layers}, but training.checkpointing is false.",
            "Leave one of the two out.",
            "training.checkpointed_layers",
        )
    if training.keep_general_by != "kl" and not training.keep_general:
        yield OrderError(
            f"training.keep_general_by is {training.keep_general_by}, but the brake is off.",
            "Set training.keep_general to 1, or leave training.keep_general_by out.",
            "training.keep_general_by",
        )
    unmeasured = training.best_by == "frontier" and training.forgetting is False
    if training.best_by != "auto" and (unmeasured or not training.keep_best):
        lacking = "training.forgetting is false" if training.keep_best else "no best checkpoint is kept"
        yield OrderError(
            f"training.best_by is {training.best_by}, but {lacking}.",
            "Set training.keep_best to true and leave training.forgetting out, or leave training.best_by out.",
            "training.best_by",
        )
