"""The rewards: one file each, found by looking into this folder. To add one, add a file; nothing else."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from studio.registry import discover
from studio.reward import Reward

REWARDS: dict[str, type[Reward]] = discover(__path__, __name__, Reward)
if TYPE_CHECKING:
    AnyReward = Reward
else:
    AnyReward = Annotated[reduce(or_, REWARDS.values()), Field(discriminator="name")]


def labels(rewards: tuple[Reward, ...]) -> list[str]:
    """A name for each reward of a sum: its own, with a number where there are several of a kind."""
    names = [reward.name for reward in rewards]
    return [
        name if names.count(name) == 1 else f"{name} {names[: index + 1].count(name)}"
        for index, name in enumerate(names)
    ]
