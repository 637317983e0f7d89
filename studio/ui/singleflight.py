"""Calls to services elsewhere, such as the Hub: one call for each key at a time (single flight), with a short wait.

A call goes on in the background after a caller gave up waiting; the next one with the same key finds it or its answer.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from studio.errors import StudioError, reason_of

ASKING = "The studio goes on asking, and this page looks again by itself. Check the network, or HF_ENDPOINT."
AGAIN = 60.0  # seconds before a thing that failed is asked anew
KEPT = 64  # answers
MOST = 8  # calls at a time


class Unanswered(StudioError):
    """A service has not answered yet."""

    reason = "network"


class PendingCall:
    """A call in progress, in a daemon thread of its own."""

    def __init__(self, work: Callable[[], Any]):
        self.began, self.over = time.monotonic(), threading.Event()
        self.answer: Any = None
        self.error: StudioError | None = None
        threading.Thread(target=self._run, args=(work,), name="call", daemon=True).start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self.answer = work()
        except StudioError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - the top of a thread: whoever asks is told
            self.error = StudioError(f"{reason_of(error)}.", "Try again.", reason="network")
        self.over.set()


class SingleFlight:
    """Calls in progress and the latest answers, by key. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, PendingCall] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, key: Hashable, work: Callable[[], Any], service: str, wait: float = 3.0) -> Any:
        """The answer of `work`. Raises what it raised, or Unanswered where it takes more than `wait` seconds."""
        call = self._call_for(key, work, service)
        call.over.wait(max(0.0, wait - (time.monotonic() - call.began)))
        if not call.over.is_set():
            raise Unanswered(f"{service} does not answer.", ASKING, "network")
        if call.error is not None:
            raise call.error
        return call.answer

    def _call_for(self, key: Hashable, work: Callable[[], Any], service: str) -> PendingCall:
        with self._lock:
            call = self._known.get(key)
            if call and not (call.error is not None and time.monotonic() - call.began > AGAIN):
                self._known.move_to_end(key)
                return call
            if sum(not known.over.is_set() for known in self._known.values()) >= MOST:
                raise Unanswered(
                    f"{service} does not answer.",
                    f"{MOST} questions wait for it already. Check the network, or HF_ENDPOINT.",
                    "network",
                )
            call = self._known[key] = PendingCall(work)
            answered = [key for key, known in self._known.items() if known.over.is_set()]
            for old in answered[: max(0, len(self._known) - KEPT)]:
                del self._known[old]
            return call


single_flight = SingleFlight()
