"""ZeroGPU lends a GPU for the length of a call to functions marked for it, and ends an app that marks none."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from importlib.util import find_spec
from typing import Any

from studio.talk import chat
from studio.ui import space

SECONDS = 120  # a GPU is lent for: a small model is read and answers within them


@lru_cache
def with_gpu(work: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a GPU lent to it, after which the model server ends; outside of ZeroGPU the function itself."""
    hosting = space.space()
    if not (hosting and hosting.zero and find_spec("spaces")):
        return work
    import spaces

    @wraps(work)
    def freed(*given: Any) -> Any:
        try:
            return work(*given)
        finally:
            chat.end()

    return spaces.GPU(duration=SECONDS)(freed)
