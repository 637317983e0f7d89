"""The rewards: one file each, found by looking into this folder. To add one, add a file; nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from studio.reward import Reward


def _discover() -> dict[str, type[Reward]]:
    """Reward name -> class, for every class of every module here, by `list_position`."""
    rewards: dict[str, type[Reward]] = {}
    for module in pkgutil.iter_modules(__path__):
        namespace = importlib.import_module(f"{__name__}.{module.name}")
        for value in vars(namespace).values():
            if isinstance(value, type) and issubclass(value, Reward) and value.__module__ == namespace.__name__:
                rewards[value.model_fields["name"].default] = value
    return dict(sorted(rewards.items(), key=lambda item: (item[1].list_position, item[0])))


REWARDS: dict[str, type[Reward]] = _discover()
if TYPE_CHECKING:
    AnyReward = Reward
else:
    AnyReward = Annotated[reduce(or_, REWARDS.values()), Field(discriminator="name")]


def labels(rewards: tuple[Reward, ...]) -> list[str]:
    """A name for each reward of a sum: its own, with a number where there are several of a kind."""
    names = [reward.name for reward in rewards]
    return [
        name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]
