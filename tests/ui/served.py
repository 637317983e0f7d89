"""The page served for a test: in this process, on a free port, on this computer only."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import app
from studio.ui.serving import Reach, launch


class Answer(NamedTuple):
    status: int
    body: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Page:
    """A served page that can be asked with any header, which browsers and requests would not let one set."""

    def __init__(self, blocks: Any, app: Any, address: str):
        self.blocks, self.app, self.address = blocks, app, address
        self.port = int(address.rstrip("/").rsplit(":", 1)[1])

    def ask(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
        """headers: Content_Type="…" stands for Content-Type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        try:
            connection.putrequest(method, path, skip_host="Host" in named, skip_accept_encoding=True)
            data = body.encode() if isinstance(body, str) else body
            for key, value in {
                **named,
                **({"Content-Length": str(len(data))} if data is not None and "Transfer-Encoding" not in named else {}),
            }.items():
                connection.putheader(key, value)
            connection.endheaders(data)
            answer = connection.getresponse()
            return Answer(
                answer.status,
                answer.read().decode(errors="replace"),
                {key.lower(): value for key, value in answer.getheaders()},
            )
        finally:
            connection.close()

    def job(self, name: str, *data: Any, **headers: str) -> Answer:
        return self.ask(
            "POST",
            f"/gradio_api/run/{name}",
            json.dumps({"data": list(data)}),
            Content_Type="application/json",
            **headers,
        )

    def look(self, part: str, name: str, question: dict[str, Any], **headers: str) -> Answer:
        """A reading function of a part of the page."""
        return self.ask(
            "POST", f"/studio/ask/{part}/{name}", json.dumps(question), Content_Type="application/json", **headers
        )


def routes(page: Page, method: str) -> list[str]:
    """Every path that the served app has for a method, with something plain for what varies."""

    def walk(found: Any) -> Iterator[Any]:
        for route in found:
            inner = getattr(route, "original_router", None)  # FastAPI keeps a router that was included as one route
            yield from walk(inner.routes) if inner else [route]

    paths = {
        re.sub(r"\{\w+(:path)?\}", "x", route.path)
        for route in walk(page.app.routes)
        if method in (getattr(route, "methods", None) or ())
    }
    assert "/gradio_api/upload" in paths or method != "POST", "gradio's own routes are among them"
    return sorted(paths)


@contextlib.contextmanager
def served(reach: Reach | None = None) -> Iterator[Page]:
    blocks = app.build()
    served_app, local, _ = launch(blocks, reach or Reach(), wait=False)
    try:
        yield Page(blocks, served_app, local)
    finally:
        blocks.close(verbose=False)
