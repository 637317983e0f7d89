"""Card: a driver's description of one accelerator. Notice: something a user should know about it."""

from __future__ import annotations

from typing import NamedTuple


class Card(NamedTuple):
    """One accelerator.

    memory, free: bytes, None if unknown (the card then shares the computer's RAM); uuid: its stable name or None;
    number: its index in the variable that selects cards; bf16: whether it has bf16 products.
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
    """Something about the devices that a user should know, and what to do."""

    text: str
    hint: str = ""
