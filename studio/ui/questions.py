"""What the page may ask: the reading functions of its parts, by name, over one plain route of their own.

A module declares them with @rights.read. They change nothing, take one JSON object, and return one, or a response.
Gradio has a route for such functions too; it costs three times as much a call, and reads posts of any content type.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import anyio.to_thread
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from studio import request_body
from studio.errors import StudioError, as_studio_error, internal_error
from studio.json_text import NestingError, check_depth
from studio.request_body import BodyError
from studio.ui import (
    aligning,
    benchmark,
    chat,
    chooser,
    data,
    data_edit,
    doctor,
    evaluation,
    exports,
    guard,
    influence,
    judge,
    live,
    making,
    races,
    recipes,
    rights,
    run_details,
    shares,
    tune,
    who,
    words,
)
from studio.ui.live import json_response

# what each part of the page asks
PARTS = {
    "studio-bar": (
        live, run_details, exports, shares, doctor, evaluation, influence, judge, aligning, benchmark
    ),
    "tune": (tune, recipes),
    "chooser": (chooser,),
    "data": (data, data_edit, making),
    "studio-chat": (chat,),
    "races": (races,),
}  # fmt: skip
MAX_BYTES = 4 << 20  # bytes of a question: an order, and a long text in it


class Question(BaseModel):
    """The keys of a question and their types. A count of a wrong type is read as 0: a page may be outdated."""

    model_config = ConfigDict(extra="allow", strict=True)
    order: dict[str, Any] | None = None
    lang: str | None = None
    id: str | None = None
    ids: list[str] | None = None
    name: str | None = None
    kind: str | None = None
    yaml: str | None = None
    search: str | None = None
    mark: str | None = Field(None, alias="list")
    run: dict[str, Any] | None = None
    also: Sequence[dict[str, Any]] | None = None


def reads() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Every reading function, as part/name."""
    return {
        f"{part}/{read.__name__}": read
        for part, modules in PARTS.items()
        for read in rights.declared_in(*modules, reads=True)
    }


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
        requester = who.requester_of(request)
        if not rights.allows(read, requester.role):
            return PlainTextResponse(
                *(("Log in first.", 401) if requester.role == who.NOBODY else ("Only the owner may do this here.", 403))
            )
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return PlainTextResponse("Ask in JSON.", 415)
        try:
            body = await request_body.gather(request.stream(), MAX_BYTES)
        except BodyError as error:
            return PlainTextResponse(f"The question cannot be read: {error}.", error.status)
        try:
            question = check_depth(orjson.loads(body))
        except ValueError as error:
            return PlainTextResponse(str(error) if isinstance(error, NestingError) else "Ask in JSON.", 400)
        if not isinstance(question, dict):
            return PlainTextResponse("Ask with one JSON object.", 400)
        with who.acting_as(requester):
            return await anyio.to_thread.run_sync(_answer, read, question, limiter=rights.limiter_for(read))

    return Route(f"{guard.ASK}{{name:path}}", answer, methods=["POST"])


def _answer(read: Callable[[dict[str, Any]], Any], question: dict[str, Any]) -> Response:
    """The answer; a refusal as {error: {message, hint, where}} with status 400, an error of ours with 500."""
    try:
        Question.model_validate(question)
        found = read(question)
        return found if isinstance(found, Response) else json_response(found)
    except ValidationError as error:
        first = error.errors()[0]
        return refused(
            StudioError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", "Ask as the page does.", "question"),
            question,
        )
    except Exception as error:  # noqa: BLE001 - the route's last resort: nobody is answered with a bare 500
        explained = as_studio_error(error)
        if explained is None:
            traceback.print_exc()
        return refused(explained or internal_error(error), question, 400 if explained else 500)


def refused(error: StudioError, question: dict[str, Any], status: int = 400) -> Response:
    lang = question.get("lang")
    response = json_response({"error": words.explain(error, words.language(lang if isinstance(lang, str) else ""))})
    response.status_code = status
    return response
