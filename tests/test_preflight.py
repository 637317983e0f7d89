"""What would be ignored, or fail late, is refused before there is a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio import config, device, preflight
from studio.errors import OrderError

INT8 = {"name": "qlora", "quantization": "int8", "compute": "fp16"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "keep_best": ({"data": {"eval": 0}, "training": {"keep_best": True}}, "training.keep_best"),
    "early_stopping": ({"data": {"eval": None}, "training": {"early_stopping": 3}}, "training.early_stopping"),
    "sample_prompts": ({"data": {"eval": 0}, "training": {"sample_prompts": ["Hi"]}}, "training.sample_prompts"),
    "compute of int8": ({"method": INT8}, "method.compute"),
    "keep_general_by": ({"training": {"keep_general_by": "replay"}}, "training.keep_general_by"),
    "best_by": ({"training": {"best_by": "frontier"}}, "training.best_by"),
    "best_by of nothing": (
        {"training": {"best_by": "frontier", "keep_best": True, "forgetting": False}},
        "training.best_by",
    ),
    "best_by loss": ({"training": {"best_by": "loss"}}, "training.best_by"),
    "overlap": ({"data": {"overlap": 8}}, "data.overlap"),
    "revision": ({"model": {"source": "starter", "revision": "main"}}, "model.revision"),
    "text": ({"method": {"name": "prompt", "init": "random", "text": "Be brief."}}, "method.text"),
    "text of a projection": ({"method": {"name": "prefix", "projection": True, "text": "Be brief."}}, "method.text"),
    "forgetting": ({"stage": "reward", "training": {"forgetting": True}}, "training.forgetting"),
    "an unknown optimizer": ({"training": {"optimizer": "adamv"}}, "training.optimizer"),
    "one that wants more than its name": ({"training": {"optimizer": "galore_adamw"}}, "training.optimizer"),
}


def order(data: dict[str, Any] | None = None, **sections: Any) -> config.RunConfig:
    return config.build({"data": {"train": "sample", **(data or {})}, **sections})


def _refuse(made: config.RunConfig) -> None:
    made.stage.refuse(made.method, made.data, made.training)
    preflight.check_settings(made, device.cpu())


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    sections, where = REFUSED[case]
    made = order(**sections)
    with pytest.raises(OrderError) as refused:
        _refuse(made)
    assert refused.value.where == where
    assert refused.value.hint


def test_what_is_sound_passes() -> None:
    preflight.check_settings(order(), device.cpu())
    kept = {"keep_best": True, "best_by": "loss", "optimizer": "adafactor"}
    split = {"overlap": 8, "too_long": "split"}
    preflight.check_settings(order(split, training=kept, method={**INT8, "compute": "auto"}), device.cpu())


def test_all_optimizers_are_known_to_transformers() -> None:
    from transformers.training_args import OptimizerNames

    assert set(preflight.OPTIMIZERS) - {"adamw"} <= {one.value for one in OptimizerNames}


@pytest.mark.parametrize(
    ("sections", "where"),
    [
        ({"training": {"packing": True, "attention": "eager"}}, "training.packing"),
        ({"method": {"name": "prompt", "virtual_tokens": 600}}, "method.virtual_tokens"),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_a_run(
    sections: dict[str, Any], where: str, home: Path, tiny_model: Path
) -> None:
    """Packing failed once the model was loaded; virtual tokens beyond the context were told as stage.max_new_tokens."""
    with pytest.raises(OrderError) as refused:
        preflight.check(order(model=str(tiny_model), **sections))
    assert refused.value.where == where
