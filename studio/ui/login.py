"""The login: an owner's password and, if wanted, a second one that only lets people watch. Constant time, few tries."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from studio.ui import who
from studio.ui.who import OWNER, WATCHER

TRIES, WINDOW = 8, 60.0  # wrong passwords of one address within so many seconds lock it out for as long
CEILING = 64  # wrong passwords of all addresses together; they lock out every address that never gave the right one
PEER = 3 * TRIES  # wrong passwords that come over one other machine or program, whoever it says it asks for
REMEMBERED = 4096  # addresses


class Gate:
    """Whether a name and a password are right. While an address is locked out, nothing it gives is.

    strong: the owner's password is made of random bits, which nobody guesses; it is accepted at any time, so that no
    stranger's tries lock the owner out.
    proxied: connections come from a known proxy (a tunnel, a Space's), so many people share one.
    A browser that logged in before (who.device) is counted by itself.
    """

    def __init__(
        self,
        owner: str,
        watcher: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        strong: bool = False,
        proxied: bool = False,
    ):
        self.owner = owner
        self._passwords = {OWNER: owner, WATCHER: watcher or ""}
        self._clock = clock
        self._lock = threading.Lock()
        self._strong = strong
        self._proxied = proxied
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()  # by address, when; the longest unheard of first
        self._all_wrong: list[float] = []
        self._until: dict[str, float] = {}
        self._closed_until, self._trusted = 0.0, set()

    def __call__(self, user: str, password: str) -> bool:
        known = self._passwords.get(user, "")
        right = hmac.compare_digest(known.encode() or secrets.token_bytes(16), password.encode("utf-8", "replace"))
        with self._lock:
            if right and self._strong and user == OWNER:
                return True
            counters = self._counters()
            if self._is_locked_out(counters):
                return False
            if right:
                for key in counters:
                    self._wrong.pop(key, None)
                self._trusted.update(counters)
                return True
            self._count_wrong(counters)
            return False

    def locked(self) -> float:
        """Seconds until the requester may try again; 0 where it may now."""
        with self._lock:
            now, counters = self._clock(), self._counters()
            closed = 0.0 if self._trusted & set(counters) or who.device.get() else self._closed_until
            return max(0.0, closed - now, *(self._until.get(key, 0.0) - now for key in counters))

    def _counters(self) -> list[str]:
        """The counters that a try of the requester adds to: its device, or its network and the proxy it came over."""
        if who.device.get():
            return [f"device {who.device.get()}"]
        peer = who.peer.get()
        over = [f"over {network(peer)}"] if peer and peer != who.address.get() and not self._proxied else []
        return [network(who.address.get()), *over]

    def _is_locked_out(self, counters: list[str]) -> bool:
        now = self._clock()
        known = who.device.get() or counters[0] in self._trusted
        return any(now < self._until.get(key, 0.0) for key in counters) or (now < self._closed_until and not known)

    def _count_wrong(self, counters: list[str]) -> None:
        """A wrong password more."""
        now = self._clock()
        for key in counters:
            mine = [*(at for at in self._wrong.pop(key, []) if now - at < WINDOW), now]
            self._wrong[key] = mine
            if len(mine) >= (PEER if key.startswith("over ") else TRIES):
                self._until[key] = now + WINDOW
                del self._wrong[key]
        self._all_wrong = [*(at for at in self._all_wrong if now - at < WINDOW), now]
        if len(self._all_wrong) >= CEILING:
            self._closed_until, self._all_wrong = now + WINDOW, []
        self._until = {key: until for key, until in self._until.items() if until > now}
        while len(self._wrong) > REMEMBERED:
            self._wrong.popitem(last=False)


def network(address: str) -> str:
    """The network whose tries are counted together: an IPv4 address, or the /64 prefix of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def password() -> str:
    """A password to be printed once: 96 random bits."""
    return secrets.token_urlsafe(12)
