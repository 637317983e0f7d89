"""The login: an owner's password and, if wanted, a second one that only lets people watch. Constant time, few tries."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any

from studio.ui import who
from studio.ui.who import NOBODY, OWNER, WATCHER

TRIES, WINDOW = 8, 60.0  # wrong passwords of one address within so many seconds lock it out for as long
CEILING = 64  # wrong passwords of all addresses together; they lock out every address that never gave the right one
REMEMBERED = 4096  # addresses


class Gate:
    """Whether a name and a password are right. While an address is locked out, nothing it gives is."""

    def __init__(self, owner: str, watcher: str | None = None, clock: Callable[[], float] = time.monotonic):
        self._passwords = {OWNER: owner, WATCHER: watcher or ""}
        self._clock, self._lock = clock, threading.Lock()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()  # by address, when; the longest unheard of first
        self._everybody: list[float] = []
        self._until: dict[str, float] = {}
        self._closed, self._friends = 0.0, set()

    def __call__(self, user: str, password: str) -> bool:
        with self._lock:
            now, where = self._clock(), network(who.address.get())
            known = self._passwords.get(user, "")
            right = hmac.compare_digest(known.encode() or secrets.token_bytes(16), password.encode())
            if now < self._until.get(where, 0.0) or (now < self._closed and where not in self._friends):
                return False
            if right:
                self._wrong.pop(where, None)
                self._friends.add(where)
                return True
            self._count(where, now)
            return False

    def _count(self, where: str, now: float) -> None:
        """A wrong password more."""
        mine = [*(at for at in self._wrong.pop(where, []) if now - at < WINDOW), now]
        self._wrong[where] = mine
        self._everybody = [*(at for at in self._everybody if now - at < WINDOW), now]
        if len(mine) >= TRIES:
            self._until[where] = now + WINDOW
            del self._wrong[where]
        if len(self._everybody) >= CEILING:
            self._closed, self._everybody = now + WINDOW, []
        self._until = {one: until for one, until in self._until.items() if until > now}
        while len(self._wrong) > REMEMBERED:
            self._wrong.popitem(last=False)


def network(address: str) -> str:
    """Whose tries are counted together: an IPv4 address; of IPv6 the first half, since one household has all of the second."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def role_of(scope: dict[str, Any]) -> str:
    """OWNER or WATCHER, by the login cookie of a request; NOBODY without one."""
    app = scope.get("app")
    cookies: SimpleCookie = SimpleCookie()
    for key, value in scope["headers"]:
        if key == b"cookie":
            try:
                cookies.load(value.decode("latin-1"))
            except CookieError:
                continue
    for name in (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"):
        if name in cookies and cookies[name].value in app.tokens:
            return app.tokens[cookies[name].value]
    return NOBODY


def password() -> str:
    """A password to be printed once: 96 random bits."""
    return secrets.token_urlsafe(12)
