"""Who asks: the role and the address of the request that is being answered.

The guard (guard.py) finds out once, from cookie and address, and leaves a Requester in the request's ASGI scope, which
no client can write. Jobs and reads (rights.py) take it from there and set it for the code below, in its thread too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

# watch: logged in to look. visit: anybody on a public Space, who may also chat. NOBODY: not logged in where a login
# is asked for.
OWNER = "owner"
WATCHER = "watch"
VISITOR = "visit"
NOBODY = ""
KEY = "studio.requester"  # in the scope of a request
REFUSAL = "studio.refusal"  # there too: {"status": …} of a job that was refused, which gradio answers with 500


class Requester(NamedTuple):
    """guarded: whether there is a login or others can reach the page: only the studio's own files may be named."""

    role: str = NOBODY
    address: str = ""
    guarded: bool = True


role: ContextVar[str] = ContextVar("role", default=OWNER)  # outside of a request: a terminal, a test
address: ContextVar[str] = ContextVar("address", default="")
peer: ContextVar[str] = ContextVar("peer", default="")  # who holds the connection: a proxy, or the requester itself
device: ContextVar[str] = ContextVar("device", default="")  # a browser that has logged in here before
guarded: ContextVar[bool] = ContextVar("guarded", default=False)


def owns() -> bool:
    """Whether the owner asks."""
    return role.get() == OWNER


def requester_of(request: Any) -> Requester:
    """Who sent a request (of Starlette, or gradio's wrapper of one). One that did not pass the guard is nobody's."""
    scope = getattr(getattr(request, "request", None) or request, "scope", None)
    found = scope.get(KEY) if isinstance(scope, dict) else None
    return found if isinstance(found, Requester) else Requester()


def refuse_with(request: Any, status: int) -> None:
    """Let a request be answered with this status instead of gradio's 500."""
    scope = getattr(getattr(request, "request", None) or request, "scope", None)
    if isinstance(scope, dict):
        scope.get(REFUSAL, {})["status"] = status


@contextlib.contextmanager
def acting_as(requester: Requester) -> Iterator[None]:
    """Inside, `role`, `address` and `guarded` are those of this requester."""
    before = role.set(requester.role), address.set(requester.address), guarded.set(requester.guarded)
    try:
        yield
    finally:
        for variable, token in zip((role, address, guarded), before, strict=True):
            variable.reset(token)
