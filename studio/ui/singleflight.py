"""Questions to services elsewhere, such as the Hub: one flight for each thing asked, a short wait, and a sentence while it is under way.

A flight goes on behind a question that did not wait for it; the next question of the same thing finds it, or its answer.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from studio.errors import StudioError

ASKING = "The studio goes on asking, and this page looks again by itself. Check the network, or HF_ENDPOINT."
AGAIN = 60.0  # seconds before a thing that failed is asked anew
KEPT = 64  # answers
MOST = 8  # flights at a time


class Unanswered(StudioError):
    """A service has not answered yet."""

    reason = "network"


class PendingCall:
    """One question under way, in a thread of its own that does not keep the process alive."""

    def __init__(self, work: Callable[[], Any]):
        self.began, self.over = time.monotonic(), threading.Event()
        self.answer: Any = None
        self.error: StudioError | None = None
        threading.Thread(target=self._fly, args=(work,), name="flight", daemon=True).start()

    def _fly(self, work: Callable[[], Any]) -> None:
        try:
            self.answer = work()
        except StudioError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - the top of a thread: whoever asks is told
            self.error = StudioError(f"{type(error).__name__}: {str(error)[:200]}", "Try again.", reason="network")
        self.over.set()


class SingleFlight:
    """Those under way and the latest answers. Safe from several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, PendingCall] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, key: Hashable, work: Callable[[], Any], service: str, wait: float = 3.0) -> Any:
        """The answer of `work`. Raises what it raised, or Unanswered where `wait` seconds from its start are not enough."""
        flight = self._of(key, work, service)
        flight.over.wait(max(0.0, wait - (time.monotonic() - flight.began)))
        if not flight.over.is_set():
            raise Unanswered(f"{service} does not answer.", ASKING, "network")
        if flight.error is not None:
            raise flight.error
        return flight.answer

    def _of(self, key: Hashable, work: Callable[[], Any], service: str) -> PendingCall:
        with self._lock:
            flight = self._known.get(key)
            if flight and not (flight.error is not None and time.monotonic() - flight.began > AGAIN):
                self._known.move_to_end(key)
                return flight
            if sum(not one.over.is_set() for one in self._known.values()) >= MOST:
                raise Unanswered(
                    f"{service} does not answer.",
                    f"{MOST} questions wait for it already. Check the network, or HF_ENDPOINT.",
                    "network",
                )
            flight = self._known[key] = PendingCall(work)
            for old in [name for name, one in self._known.items() if one.over.is_set()][
                : max(0, len(self._known) - KEPT)
            ]:
                del self._known[old]
            return flight


single_flight = SingleFlight()
