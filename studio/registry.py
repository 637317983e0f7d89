"""Classes that are found by looking into a folder: a file each, and nothing to register."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from inspect import isabstract
from typing import Any


def discover(path: Iterable[str], package: str, kind: Any, tag: str = "name") -> dict[str, Any]:
    """{value of its field `tag`: class}, for every concrete class of this kind in a package, by `list_position`."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(path):
        namespace = importlib.import_module(f"{package}.{module.name}")
        for value in vars(namespace).values():
            if (
                isinstance(value, type)
                and issubclass(value, kind)
                and value.__module__ == namespace.__name__
                and not isabstract(value)
            ):
                found[value.model_fields[tag].default] = value
    return dict(sorted(found.items(), key=lambda item: (item[1].list_position, item[0])))


def attributes(described: Any, *names: str) -> dict[str, Any]:
    """{name: the attribute of that name}: what a class or an object says of itself, as plain data."""
    return {name: getattr(described, name) for name in names}
