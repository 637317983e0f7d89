"""Who asks: the role and the address of the request that is being answered. Set by the guard, read by whatever answers, in its thread too."""

from __future__ import annotations

from contextvars import ContextVar

OWNER, WATCHER, NOBODY = "owner", "watch", ""

role: ContextVar[str] = ContextVar("role", default=OWNER)  # outside of a request: a terminal, a test
address: ContextVar[str] = ContextVar("address", default="")


def owns() -> bool:
    """Whether the owner asks."""
    return role.get() == OWNER
