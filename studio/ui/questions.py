"""What the page may ask: the reading functions of its parts, by name, over one plain route of their own.

A tab's module names them in READS. They change nothing, take one JSON object, and give one, or a response. Gradio has a route for such
functions too; it costs three times as much a call, and reads posts of any content type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio.to_thread
import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from studio.json_text import NestingError, shallow
from studio.ui import bar, chat, data, guard, rights, tune, who
from studio.ui.live import answered

PARTS = {"studio-bar": bar, "tune": tune, "data": data, "studio-chat": chat}
LARGEST = 4 << 20  # bytes of a question: an order, and a long text in it


def reads() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Every reading function, as part/name. Raises TypeError for one that does not say who may ask it."""
    found = {f"{part}/{read.__name__}": read for part, module in PARTS.items() for read in module.READS}
    for name, read in found.items():
        if not rights.roles_of(read):
            raise TypeError(f"The read {name} does not say who may ask it: put @rights.read(…) on it.")
    return found


def warm() -> None:
    """Ask what a first visitor's page will ask, so that the libraries behind it are there when it does."""
    tune.look({"order": tune.offer({})["first"]})


def route() -> Route:
    """The route, for the app's constructor: it is there before the first request."""
    known = reads()

    async def answer(request: Request) -> Response:
        read = known.get(request.path_params["name"])
        if read is None:
            return PlainTextResponse("Nothing of this name can be asked.", 404)
        asker = who.asker_of(request)
        if not rights.allows(read, asker.role):
            return PlainTextResponse(*(("Log in first.", 401) if asker.role == who.NOBODY else ("Only the owner may do this here.", 403)))
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return PlainTextResponse("Ask in JSON.", 415)
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST:
                return PlainTextResponse("The question is too long.", 413)
        try:
            question = shallow(orjson.loads(body))
        except ValueError as error:
            return PlainTextResponse(str(error) if isinstance(error, NestingError) else "Ask in JSON.", 400)
        if not isinstance(question, dict):
            return PlainTextResponse("Ask with one JSON object.", 400)
        with who.asking(asker):
            found = await anyio.to_thread.run_sync(read, question)
        return found if isinstance(found, Response) else answered(found)

    return Route(f"{guard.ASK}{{name:path}}", answer, methods=["POST"])
