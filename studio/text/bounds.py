"""Bounds of one render of a template: loop turns, seconds, characters, elements of values, sizes of numbers.

Python cannot be stopped within one of its own functions. So every value that goes into one is measured first, through
lists within lists, and the clock is looked at before each.
"""

from __future__ import annotations

import re
import time
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError

SIZE = 16_000_000  # characters one render may produce or hold
STEPS = 400_000  # loop turns and macro calls of one render
SECONDS = 3.0  # of one render
ELEMENTS = 200_000  # of a value, those in its lists and theirs counted as often as they stand there
NESTED = (list, tuple, dict)
BITS = 4096  # of a number
budget: ContextVar[Budget] = ContextVar("budget")  # of the render in progress


class Budget:
    """What one render has used so far."""

    def __init__(self) -> None:
        self.steps = 0
        self.size = 0
        self.deadline = time.monotonic() + SECONDS

    def step(self) -> str:
        self.steps += 1
        if self.steps > STEPS or time.monotonic() > self.deadline:
            raise SecurityError("it loops too long")
        return ""

    def grow(self, size: int) -> None:
        self.size += size
        if self.size > SIZE:
            raise SecurityError("it produces too much text")


def measured(value: Any) -> Any:
    """The value, refused where it is too large; elements count as often as they stand in its lists and dicts."""
    if isinstance(value, NESTED):
        elements = size = 0
        rest = [value]
        while rest:
            element = rest.pop()
            if isinstance(element, str):
                size += len(element)
            elif isinstance(element, dict):
                rest += [*element.keys(), *element.values()]
            elif isinstance(element, (list, tuple)):
                rest += element
            elements += 1
            if elements > ELEMENTS or size > SIZE or len(rest) > 2 * ELEMENTS:
                raise SecurityError("it produces too much text")
    return value


def measure_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for value in args:
        if isinstance(value, NESTED):
            measured(value)
    for value in kwargs.values():
        measured(value)


def counted(value: Any) -> Any:
    if isinstance(value, NESTED):
        measured(value)
    budget.get().grow(len(value) if isinstance(value, (str, list, tuple, dict)) else 8)
    return value


def check_numbers(operator: str, left: Any, right: Any) -> None:
    """Refuse numbers that fill memory: powers of powers, and products of those."""
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        return
    bits = [value.bit_length() if isinstance(value, int) else 64 for value in (left, right)]
    size = bits[0] * abs(right) if operator == "**" else sum(bits)
    if not size <= BITS:
        raise SecurityError("it computes with enormous numbers")


def check_format(pattern: str) -> None:
    if re.search(r"\d{6}|\*", pattern):
        raise SecurityError("it pads text without measure")


def check_call(function: Any, args: tuple[Any, ...]) -> None:
    """Refuse, before it happens, a call of a str method that would build an enormous string."""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if any(isinstance(a, int) and abs(a) > 1_000_000 for a in args):
        raise SecurityError("it passes an enormous number")
    if isinstance(owner, str):
        check_text(owner, name, args)
    budget.get().step()


def check_text(text: str, name: str, args: tuple[Any, ...]) -> None:
    size = len(text)
    if name == "replace" and len(args) >= 2:
        size += text.count(str(args[0])) * len(str(args[1]))
    elif name == "join" and args and isinstance(args[0], (list, tuple)):
        size = sum(len(str(a)) + len(text) for a in args[0])
    elif name in ("ljust", "rjust", "center", "zfill", "expandtabs") and args:
        size += int(args[0])
    elif name in ("format", "format_map"):
        check_format(text)
    budget.get().grow(size)
