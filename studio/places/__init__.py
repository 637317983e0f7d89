"""Where a run can be trained: one file each, found by looking into this folder. To add one, add a file; nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from functools import reduce
from inspect import isabstract
from operator import or_
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

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


AnyPlace = Annotated[reduce(or_, PLACES.values()), Field(discriminator="kind"), BeforeValidator(_in_full)]
