"""Card: what a driver says of one accelerator. Notice: what a user should know of it."""

from __future__ import annotations

from typing import NamedTuple


class Card(NamedTuple):
    """One accelerator. memory, free: bytes, None where the driver does not tell them (the card then shares the computer's RAM).

    uuid: its stable name, None where there is none; number: its place in the variable that chooses cards, where it has no name;
    bf16: whether it multiplies in bf16.
    """

    name: str
    uuid: str | None
    number: int
    memory: int | None
    free: int | None
    bf16: bool
    capability: tuple[int, int] | None = None
    utilisation: int | None = None
    temperature: int | None = None


class Notice(NamedTuple):
    """Something about the devices that a user would otherwise find out too late: what is so, and what to do."""

    text: str
    hint: str = ""
