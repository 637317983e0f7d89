"""The noun: a warning about a running training."""

from __future__ import annotations

from typing import NamedTuple


class Sign(NamedTuple):
    """A warning.

    kind: a short name for programs; level: warning or error; text: the observation; rule: why it matters; action: one
    thing to do; step: where.
    """

    kind: str
    level: str
    text: str
    rule: str
    action: str
    step: int
