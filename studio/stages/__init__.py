"""The stages: one file each, found by looking into this folder. To add one, add a file; nothing else."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from studio.registry import discover
from studio.stage import Stage

STAGES: dict[str, type[Stage]] = discover(__path__, __name__, Stage)
if TYPE_CHECKING:
    AnyStage = Stage
else:
    AnyStage = Annotated[reduce(or_, STAGES.values()), Field(discriminator="name")]


def learning_from(examples: str) -> list[str]:
    """The names of the stages that learn from this kind of examples (stage.EXAMPLES)."""
    return [name for name, stage in STAGES.items() if stage.examples == examples]
