"""Where a run can be trained: one file each, found by looking into this folder. To add one, add a file; nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from functools import reduce
from inspect import isabstract
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from studio import cards
from studio.device import Device, devices
from studio.place import Place


def _discover() -> dict[str, type[Place]]:
    """Every class of every module here that can be made, by its kind."""
    found: dict[str, type[Place]] = {}
    for module in pkgutil.iter_modules(__path__):
        namespace = importlib.import_module(f"{__name__}.{module.name}")
        for thing in vars(namespace).values():
            own = isinstance(thing, type) and issubclass(thing, Place) and thing.__module__ == namespace.__name__
            if own and not isabstract(thing):
                found[thing.model_fields["kind"].default] = thing
    return dict(sorted(found.items(), key=lambda item: (item[1].remote, item[0])))


PLACES: dict[str, type[Place]] = _discover()


def _in_full(value: Any) -> Any:
    """The short forms `here`, `ssh:me@gpu-box` and `job:l4x1` as the objects they stand for."""
    if not isinstance(value, str):
        return value
    kind, _, rest = value.partition(":")
    first = next((key for key in PLACES[kind].model_fields if key != "kind"), None) if kind in PLACES else None
    return {"kind": kind, **({first: rest} if rest and first else {})}


if TYPE_CHECKING:
    AnyPlace = Place
else:
    AnyPlace = Annotated[reduce(or_, PLACES.values()), Field(discriminator="kind"), BeforeValidator(_in_full)]


def device_of(place: Place) -> Device | None:
    """The device a run trains on: this computer's first, or that of the place; None where a place has not told yet what it has."""
    if not place.remote:
        return devices()[0]
    machine = place.machine()
    if machine is None:
        return None
    if machine.card is None:
        size = machine.ram or 0
        return Device(kind="cpu", name=f"{place.address} (CPU)", memory=size, free=size)
    card = cards.find(machine.card, machine.memory)
    if card is not None:
        return cards.device(card.name, machine.memory)
    size = machine.memory or 0
    return Device(kind="cuda", name=machine.card, memory=size, free=size, capability=(8, 0), bf16=True)
