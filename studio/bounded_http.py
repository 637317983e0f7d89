"""How long a client may keep a connection of an HTTP server waiting, and how many may.

Uvicorn has no limit for a head or a body that never ends, nor for an answer that nobody takes: as many connections as
the process has descriptors would shut everybody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from studio import request_body

SLOWEST = 10.0  # seconds for the head of a request, and for the rest of a body that was refused
BODY = request_body.SLOWEST + SLOWEST  # seconds for a body; whoever reads it has refused it before
STALLED = 60.0  # seconds in which nothing of an upload comes, or nothing of an answer is taken
UPLOAD = "/gradio_api/upload"
DESCRIPTORS = 16_384  # asked for, where the system allows
SHARE = 8  # connections that wait for their client take at most one in so many of the descriptors


def protocol() -> type[Bounded]:
    """The protocol of one server, with these bounds; the process gets as many descriptors as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    most = max(16, (DESCRIPTORS if soft == resource.RLIM_INFINITY else soft) // SHARE)
    return type("BoundedHere", (Bounded,), {"most": most, "awaited": {}})


class Bounded(H11Protocol):
    """Uvicorn's protocol with a time for whatever a connection waits for its client to do, and a bound on how many
    wait: one more ends the oldest.
    """

    most: int
    awaited: dict[Bounded, asyncio.TimerHandle]  # the longest waiting first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "peer": self.client[0] if self.client else ""}
        self._await(SLOWEST)

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.conn.their_state
        if before is h11.IDLE and self not in self.awaited:
            self._await(SLOWEST)  # the next request on this connection
        super().data_received(data)
        after = self.conn.their_state
        if after is h11.SEND_BODY and (before is not after or self._uploads()):
            self._await(STALLED if self._uploads() else BODY)
        elif after not in (h11.IDLE, h11.SEND_BODY):
            self._done()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._await(SLOWEST)  # the rest of a body that was refused

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await(STALLED)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._done()

    def _uploads(self) -> bool:
        """Whether a file is being taken, for as long as it takes while something comes."""
        return self.scope["path"].rstrip("/") == UPLOAD and not self.cycle.response_complete

    def _await(self, seconds: float) -> None:
        self._done()
        while len(self.awaited) >= self.most:
            next(iter(self.awaited))._end()
        self.awaited[self] = self.loop.call_later(seconds, self._end)

    def _done(self) -> None:
        timer = self.awaited.pop(self, None)
        if timer:
            timer.cancel()

    def _end(self) -> None:
        self._done()
        self.transport.abort()
