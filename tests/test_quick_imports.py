"""What is left out of an import is left out, and what was put off comes when it is called."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from studio import quick_imports


def test_once_and_around_the_module_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slowly.py").write_text("def work():\n    raise AssertionError\n")
    monkeypatch.syspath_prepend(tmp_path)
    executed = []

    def around(module: ModuleType, execute: quick_imports.Execute) -> None:
        execute(module)
        module.work = lambda: executed.append(module.__name__)

    finder = quick_imports.Finder("slowly", around)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    import slowly

    slowly.work()
    assert executed == ["slowly"]
    assert finder not in sys.meta_path
    del sys.modules["slowly"]


def test_compiled_at_its_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_now(function, **options):
        compiled.append((function.__name__, options))
        return lambda number: function(number) + 0.5

    def execute(module):
        @torch.compile
        def plain(number):
            """Its words."""
            return number + 1

        @torch.compile(dynamic=True)
        def with_options(number):
            return number + 2

        module.plain, module.with_options = plain, with_options

    monkeypatch.setattr(torch, "compile", compile_now)
    module = SimpleNamespace()
    quick_imports._compiled_when_called(module, execute)
    assert torch.compile is compile_now
    assert module.plain.__doc__ == "Its words."
    assert compiled == []
    assert [module.plain(1), module.plain(2), module.with_options(1)] == [2.5, 3.5, 3.5]
    assert compiled == [("plain", {}), ("with_options", {"dynamic": True})]


@pytest.mark.parametrize(("package", "name"), [("datasets", "trainer"), ("scipy", "loss.loss_for_object_detection")])
def test_transformers_does_not_know_a_package_and_others_do(package: str, name: str) -> None:
    import importlib

    from transformers import utils

    importlib.import_module("transformers.loss.loss_utils")
    is_available, known = f"is_{package}_available", []
    quick_imports._without(package, SimpleNamespace(), lambda module: known.append(getattr(utils, is_available)()))
    assert (known, getattr(utils, is_available)()) == ([False], True)
    module = importlib.import_module(f"transformers.{name}")
    assert not getattr(module, is_available)()
    source = Path(module.__file__).read_text()
    assert re.search(rf"if {is_available}\(\):\n    (import|from) {package}", source), "no more needed"


@pytest.mark.parametrize("name", ["gradio.component_meta", "bitsandbytes.backends.default.ops"])
def test_the_libraries_still_have_what_is_left_out(name: str) -> None:
    """Where a library mends this itself, our way around it can go."""
    import importlib

    module = importlib.import_module(name)
    source = Path(module.__file__).read_text()
    assert ("def create_or_modify_pyi(" in source) or ("torch.compile(" in source)
    assert not hasattr(module, "create_or_modify_pyi") or module.create_or_modify_pyi() is None, "not gradio's own"
