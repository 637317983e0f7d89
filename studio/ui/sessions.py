"""Who is logged in: sessions that end by themselves, and the browsers that have logged in here before."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from studio.home import subfolder, write_atomic

IDLE, LONGEST = 24 * 3600.0, 14 * 24 * 3600.0  # seconds without a request, and in all, after which a session has ended
MOST = 1000  # sessions at once; the one that was silent longest ends first


class Sessions:
    """Role by token. Only a hash of a token is kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._sessions: OrderedDict[str, tuple[str, float, float]] = OrderedDict()  # hash -> (role, begun, last seen)

    def begin(self, role: str) -> str:
        """A new session's token."""
        token, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._sessions[_hash(token)] = (role, now, now)
            while len(self._sessions) > MOST:
                self._sessions.popitem(last=False)
        return token

    def role(self, token: str) -> str:
        """The role of a living session, which lives on; "" for any other token."""
        key, now = _hash(token), self._clock()
        with self._lock:
            role, begun, seen = self._sessions.get(key, ("", 0.0, 0.0))
            if not role or now - seen > IDLE or now - begun > LONGEST:
                self._sessions.pop(key, None)
                return ""
            self._sessions[key] = (role, begun, now)
            self._sessions.move_to_end(key)
            return role

    def end(self, token: str) -> None:
        """End a session: its token opens nothing any more."""
        with self._lock:
            self._sessions.pop(_hash(token), None)


class Devices:
    """Marks browsers that logged in before, by a signed cookie: strangers' wrong tries never lock those out."""

    def __init__(self) -> None:
        self._key = _key()

    def mark(self) -> str:
        """A new mark: a random name and its signature."""
        name = secrets.token_urlsafe(12)
        return f"{name}.{self._signature(name)}"

    def known(self, mark: str) -> str:
        """The name in a mark of ours; "" for anything else."""
        name, _, signature = mark.rpartition(".")
        return name if name and hmac.compare_digest(self._signature(name).encode(), signature.encode()) else ""

    def _signature(self, name: str) -> str:
        return hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()


def cookies(scope: dict[str, Any]) -> dict[str, str]:
    """The cookies of a request. An odd one, of another program on this computer, is left out, and the others stay."""
    found: dict[str, str] = {}
    for key, value in scope["headers"]:
        if key == b"cookie":
            for part in value.decode("latin-1").split(";"):
                name, sign, value = part.strip().partition("=")
                if sign and name:
                    found.setdefault(name, value.strip().strip('"'))
    return found


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _key() -> bytes:
    """The key that marks are signed with; kept in the home, so that a restarted page knows them."""
    file = subfolder("locks") / "devices.key"
    try:
        return bytes.fromhex(file.read_text())
    except (OSError, ValueError):
        key, before = secrets.token_bytes(32), os.umask(0o077)
        try:
            write_atomic(file, key.hex())
        finally:
            os.umask(before)
        return key
