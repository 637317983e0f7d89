"""Which proxies are trusted: whose X-Forwarded-For is believed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

PROXIES = "FORWARDED_ALLOW_IPS"  # uvicorn's: addresses of proxies whose X-Forwarded-For is believed
# where a Space's proxy stands; nobody else reaches it
PRIVATE = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"


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
