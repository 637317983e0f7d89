"""ZeroGPU with a fake of the package `spaces`: one function is marked before the launch, and the server goes back after
each answer.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from studio.page import build
from studio.ui import jobs, zero


class Spaces(types.ModuleType):
    """`spaces` as far as it is used: GPU(duration=…) marks a function, and a marked one tells that a GPU was lent."""

    def __init__(self) -> None:
        super().__init__("spaces")
        self.__spec__ = importlib.machinery.ModuleSpec("spaces", None)
        self.marked: list[tuple[str, int]] = []
        self.lent = 0

    def GPU(self, duration: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def mark(work: Callable[..., Any]) -> Callable[..., Any]:
            self.marked.append((work.__name__, duration))

            def on_gpu(*given: Any) -> Any:
                self.lent += 1
                return work(*given)

            return on_gpu

        return mark


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spaces]:
    made = Spaces()
    monkeypatch.setitem(sys.modules, "spaces", made)
    monkeypatch.setenv("SPACE_ID", "anna/studio")
    zero.with_gpu.cache_clear()
    yield made
    zero.with_gpu.cache_clear()


def test_the_built_page_has_a_marked_function_bound_to_chat(
    spaces: Spaces, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    page = build()
    assert spaces.marked == [("_answered", zero.SECONDS)]
    assert "chat" in [one.api_name for one in page.fns.values()]
    ended, told = [], {"answer": "four", "tokens": 1, "tokens_per_second": None}

    class Handle:
        def load(self, names: list[str]) -> None:
            assert names == ["base"]

        def stream(self, name: str, messages: list[dict[str, str]]) -> Iterator[Any]:
            yield types.SimpleNamespace(text="four", usage={"tokens": 1})

    monkeypatch.setattr(jobs.server, "server", Handle)
    monkeypatch.setattr(jobs.server, "end", lambda: ended.append(True))
    assert zero.with_gpu(jobs._answered)("base", "2 + 2?") == told
    assert spaces.lent == 1
    assert ended, "the GPU goes back: its memory is the server's"


def test_elsewhere_nothing_is_marked(spaces: Spaces, monkeypatch: pytest.MonkeyPatch) -> None:
    assert zero.with_gpu(jobs._answered) is jobs._answered, "a Space with a GPU of its own"
    zero.with_gpu.cache_clear()
    monkeypatch.delenv("SPACE_ID")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert zero.with_gpu(jobs._answered) is jobs._answered
    assert not spaces.marked
