"""The page served for a test: in this process, on a free port, on this computer only."""

from __future__ import annotations

import contextlib
import http.client
import json
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

    def __init__(self, blocks: Any, address: str):
        self.blocks, self.address = blocks, address
        self.port = int(address.rstrip("/").rsplit(":", 1)[1])

    def ask(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
        """headers: Content_Type="…" stands for Content-Type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        try:
            connection.putrequest(method, path, skip_host="Host" in named, skip_accept_encoding=True)
            data = body.encode() if isinstance(body, str) else body
            for key, value in {**named, **({"Content-Length": str(len(data))} if data is not None and "Transfer-Encoding" not in named else {})}.items():
                connection.putheader(key, value)
            connection.endheaders(data)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(errors="replace"), {key.lower(): value for key, value in answer.getheaders()})
        finally:
            connection.close()

    def job(self, name: str, *data: Any, **headers: str) -> Answer:
        return self.ask("POST", f"/gradio_api/run/{name}", json.dumps({"data": list(data)}), Content_Type="application/json", **headers)

    def look(self, part: str, name: str, question: dict[str, Any], **headers: str) -> Answer:
        """A reading function of the gr.HTML with this elem_id."""
        found = next(one for one in self.blocks.blocks.values() if getattr(one, "elem_id", None) == part)
        asked = {"data": question, "component_id": found._id, "fn_name": name, "session_hash": "test"}
        return self.ask("POST", "/gradio_api/component_server/", json.dumps(asked), Content_Type="application/json", **headers)


@contextlib.contextmanager
def served(reach: Reach | None = None) -> Iterator[Page]:
    blocks = app.build()
    _, local, _ = launch(blocks, reach or Reach(), wait=False)
    try:
        yield Page(blocks, local)
    finally:
        blocks.close(verbose=False)
