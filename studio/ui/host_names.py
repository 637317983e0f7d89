"""The Host names that are answered. Gradio answers any name that points here, which is what DNS rebinding needs."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from studio.address import plain

LOCAL = ("localhost", "127.0.0.1", "::1")
SHARED = re.compile(r"[a-z0-9-]+\.gradio\.live")


def is_local(host: str) -> bool:
    """Whether an address to serve on is this computer's own."""
    return host in LOCAL or host.startswith("127.")


def of_space() -> tuple[str, ...]:
    """The Space's names; with a domain of its own there are several, with commas between."""
    return tuple(name for part in os.environ.get("SPACE_HOST", "").split(",") if (name := part.strip().lower()))


def hostname(authority: str) -> str:
    """The name in a Host header or an origin, without port, in lower case; "" where there is none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


class HostNames:
    """This computer's names, the one served on, the Space's, the tunnel's, and extra ones.

    Addresses made of numbers pass when the page is served to a network: a rebinding attack needs a name.
    """

    def __init__(self, host: str = "127.0.0.1", share: bool = False, extra: Iterable[str] = ()):
        self.share, self.network = share, not is_local(host)
        self.names = {*LOCAL, host.lower(), *(plain(name).lower() for name in extra), *of_space()}

    def __contains__(self, authority: str) -> bool:
        name = hostname(authority)
        if name in self.names or (self.share and SHARED.fullmatch(name)):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.network
