"""Spares libraries that are imported after this module needless work at their import.

gradio writes stubs for editors into its own folder: half of its import. bitsandbytes, which peft imports, decorates
functions with torch.compile, and that loads torch's inductor: a fifth of a trainer's imports. transformers' Trainer
imports datasets, and with it pandas and pyarrow, only to tell rows of that library from others: a tenth. And its losses
import scipy's optimizer, which matches boxes that a detector found with those in a picture.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Execute = Callable[[ModuleType], None]


class Finder(MetaPathFinder):
    """Hands the module of one name, and what executes its code, to `around`; once."""

    def __init__(self, name: str, around: Callable[[ModuleType, Execute], None]):
        self.name, self.around = name, around

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self.around(module, execute)  # type: ignore[method-assign]
        return spec


def _without_stubs(module: ModuleType, execute: Execute) -> None:
    execute(module)
    module.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]


def _compiled_when_called(module: ModuleType, execute: Execute) -> None:
    import torch

    compile_now = torch.compile

    def compile_later(function: Any = None, **options: Any) -> Any:
        if function is None:
            return functools.partial(compile_later, **options)
        compiled = functools.cache(lambda: compile_now(function, **options))
        return functools.wraps(function)(lambda *args, **kwargs: compiled()(*args, **kwargs))

    torch.compile = compile_later
    try:
        execute(module)
    finally:
        torch.compile = compile_now


def _without(package: str, module: ModuleType, execute: Execute) -> None:
    """Execute a module of transformers to which a package seems not to be installed."""
    from transformers import utils

    name = f"is_{package}_available"
    available = getattr(utils, name)
    setattr(utils, name, lambda: False)
    try:
        execute(module)
    finally:
        setattr(utils, name, available)


sys.meta_path[:0] = [
    Finder("gradio.component_meta", _without_stubs),
    Finder("bitsandbytes.backends.default.ops", _compiled_when_called),
    Finder("transformers.trainer", functools.partial(_without, "datasets")),
    Finder("transformers.loss.loss_utils", functools.partial(_without, "scipy")),
]
