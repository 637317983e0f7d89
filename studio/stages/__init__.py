"""The stages: one file each, found by looking into this folder. To add one, add a file; nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from studio.stage import Stage


def _discover() -> dict[str, type[Stage]]:
    """Stage name -> class, for every class of every module here, by `list_position`."""
    stages: dict[str, type[Stage]] = {}
    for module in pkgutil.iter_modules(__path__):
        namespace = importlib.import_module(f"{__name__}.{module.name}")
        for value in vars(namespace).values():
            if isinstance(value, type) and issubclass(value, Stage) and value.__module__ == namespace.__name__:
                stages[value.model_fields["name"].default] = value
    return dict(sorted(stages.items(), key=lambda item: (item[1].list_position, item[0])))


STAGES: dict[str, type[Stage]] = _discover()
if TYPE_CHECKING:
    AnyStage = Stage
else:
    AnyStage = Annotated[reduce(or_, STAGES.values()), Field(discriminator="name")]


def learning_from(examples: str) -> list[str]:
    """The names of the stages that learn from this kind of examples (stage.EXAMPLES)."""
    return [name for name, stage in STAGES.items() if stage.examples == examples]
