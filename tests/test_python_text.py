"""Python's syntax read by several threads at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from studio import python_text

TEXT = repr([{"name": f"n{number}", "arguments": {"a": [1, 2, {"b": None}]}} for number in range(200)])


class Garbage:
    """What the collector frees in the midst of a tree; another thread goes on meanwhile."""

    def __init__(self) -> None:
        self.cycle = self

    def __del__(self) -> None:
        time.sleep(1e-4)


def test_threads_read_it_at_once() -> None:
    """Bare ast.literal_eval raises SystemError here before CPython 3.11.8."""

    def read(_: int) -> object:
        for _ in range(20):
            Garbage()
        return python_text.literal(TEXT)

    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(read, range(100))] == [python_text.literal(TEXT)] * 100
    assert len(python_text.parse(TEXT).body) == 1
