"""What would be ignored, or fail late, is refused before there is a run."""

from __future__ import annotations

from typing import Any

import pytest

from studio import config, preflight
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
    "an unknown optimizer": ({"training": {"optimizer": "adamv"}}, "training.optimizer"),
    "one that wants more than its name": ({"training": {"optimizer": "galore_adamw"}}, "training.optimizer"),
}


def order(data: dict[str, Any] | None = None, **sections: Any) -> config.RunConfig:
    return config.build({"data": {"train": "sample", **(data or {})}, **sections})


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    sections, where = REFUSED[case]
    with pytest.raises(OrderError) as refused:
        preflight.check_options(order(**sections))
    assert refused.value.where == where
    assert refused.value.hint


def test_what_is_sound_passes() -> None:
    preflight.check_options(order())
    preflight.check_options(
        order(training={"keep_best": True, "optimizer": "adafactor"}, method={**INT8, "compute": "auto"})
    )


def test_all_optimizers_are_known_to_transformers() -> None:
    from transformers.training_args import OptimizerNames

    assert set(preflight.OPTIMIZERS) - {"adamw"} <= {one.value for one in OptimizerNames}
