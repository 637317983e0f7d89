"""Limits of what goes on at once: connections that stay open, and requests of people who are not logged in."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from studio.ui.who import NOBODY, OWNER

LASTING = ("/gradio_api/heartbeat/", "/gradio_api/queue/data", "/gradio_api/call/", "/gradio_api/upload_progress")
MOST = {"lasting": 64, "strangers": 32}  # of each kind at once, and of one address a quarter of it
OWNERS = 160  # that the programs of the owner may hold open, each of which holds one or two


class ConcurrencyLimit:
    """Counts what is going on. Used by the event loop alone, so without a lock."""

    def __init__(self) -> None:
        self.now: Counter[tuple[str, str]] = Counter()

    @contextlib.contextmanager
    def within(self, address: str, role: str, path: str) -> Iterator[bool]:
        """Whether there is room for a request, which counts while the context is open."""
        kind = "strangers" if role == NOBODY else ""
        if path.startswith(LASTING):
            kind = f"lasting {OWNER}" if role == OWNER else "lasting"
        most = OWNERS if kind and role == OWNER else MOST.get(kind, 0)
        keys = ((kind, ""), (kind, address))
        each = most if role == OWNER else most // 4
        room = not kind or (self.now[keys[0]] < most and self.now[keys[1]] < each)
        if kind and room:
            self.now.update(keys)
        try:
            yield room
        finally:
            if kind and room:
                self.now.subtract(keys)
                self.now += Counter()  # drops what came down to nothing
