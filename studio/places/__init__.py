"""Places where a run can be trained: one file each, discovered in this folder. To add one, add a file."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from studio import cards
from studio.device import Device, devices
from studio.place import Place
from studio.registry import discover

PLACES: dict[str, type[Place]] = discover(__path__, __name__, Place, tag="kind")


def _expand_short_form(value: Any) -> Any:
    """Expand the short forms `here`, `ssh:me@gpu-box` and `job:l4x1`."""
    if not isinstance(value, str):
        return value
    kind, _, rest = value.partition(":")
    first = next((key for key in PLACES[kind].model_fields if key != "kind"), None) if kind in PLACES else None
    return {"kind": kind, **({first: rest} if rest and first else {})}


if TYPE_CHECKING:
    AnyPlace = Place
else:
    AnyPlace = Annotated[reduce(or_, PLACES.values()), Field(discriminator="kind"), BeforeValidator(_expand_short_form)]


def device_of(place: Place) -> Device | None:
    """The device a run trains on: this computer's first, or the place's; None if its hardware is not known yet."""
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
