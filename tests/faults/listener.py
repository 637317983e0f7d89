"""A local server that keeps what is posted to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.loopback import answering


@contextmanager
def listening() -> Iterator[tuple[str, list[dict]]]:
    """Its address and what it has heard so far. A path with "broken" in it is answered with 500."""
    told: list[dict] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204 if "broken" not in self.path else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Hook) as address:
        yield address, told
