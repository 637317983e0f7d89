"""Limits of the server's connections: which proxies are trusted, and how long a request's head may take to arrive.

Uvicorn has no limit for a head that never ends: a few hundred half-sent ones would use up the process's descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Iterator
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PROXIES = "FORWARDED_ALLOW_IPS"  # uvicorn's: addresses of proxies whose X-Forwarded-For is believed
# where a Space's proxy stands; nobody else reaches it
PRIVATE = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
SLOWEST = 10.0  # seconds for the head of a request
DESCRIPTORS = 16_384  # asked for, where the system allows
SHARE = 8  # half-sent heads take at most one in so many of the descriptors


@contextlib.contextmanager
def proxies(in_space: bool) -> Iterator[None]:
    """While the server is made: a Space's own proxy is believed, unless others are named."""
    before = os.environ.get(PROXIES)
    if in_space and before is None:
        os.environ[PROXIES] = PRIVATE
    try:
        yield
    finally:
        if in_space and before is None:
            os.environ.pop(PROXIES, None)


def bound(server: Any) -> None:
    """Give a running uvicorn server these bounds, and the process as many descriptors as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    most = max(16, (DESCRIPTORS if soft == resource.RLIM_INFINITY else soft) // SHARE)
    server.config.http_protocol_class = type("Bounded", (Bounded,), {"most": most, "half": {}})


class Bounded(H11Protocol):
    """Uvicorn's protocol with a time for the head, and a bound on heads under way: one more ends the oldest."""

    most: int
    half: dict[Bounded, asyncio.TimerHandle]  # connections whose head is not there yet, the oldest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "peer": self.client[0] if self.client else ""}
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE and self not in self.half:
            self._begin()  # the next request on this connection
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._done()

    def _begin(self) -> None:
        while len(self.half) >= self.most:
            next(iter(self.half))._end()
        self.half[self] = self.loop.call_later(SLOWEST, self._end)

    def _done(self) -> None:
        timer = self.half.pop(self, None)
        if timer:
            timer.cancel()

    def _end(self) -> None:
        self._done()
        self.transport.abort()
