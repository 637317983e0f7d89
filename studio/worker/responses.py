"""Answers and errors of the model server (api.py) as HTTP responses: whole, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from studio.errors import DeviceError, StudioError
from studio.talk import chat
from studio.worker import openai_answers
from studio.worker.batch_scheduler import PendingAnswer

DISCONNECT_CHECK = 0.5  # seconds between two checks that the client is still connected
Event = dict[str, Any]
Events = asyncio.Queue[Event]


def put(loop: asyncio.AbstractEventLoop, events: Events, event: Event) -> None:
    """Called from the scheduler's thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(events.put_nowait, event)


async def next_event(events: Events, request: Request) -> Event:
    """Return the next event. Raises ConnectionResetError once the client has disconnected."""
    while True:
        try:
            return await asyncio.wait_for(events.get(), DISCONNECT_CHECK)
        except TimeoutError:
            if await request.is_disconnected():
                raise ConnectionResetError from None


async def stream(
    shape: openai_answers.Shape, pending: PendingAnswer, event: Event, events: Events, usage: bool
) -> AsyncIterator[str]:
    """Yield server-sent events in OpenAI's shape. Starlette closes this generator when the client disconnects.

    A comment is sent every HEARTBEAT seconds without text, so that a client can tell a long wait from a dead server.
    """
    try:
        for line in shape.opening():
            yield _event(line)
        while "finish" not in event:
            if "error" in event:
                yield _event(error_body(event["error"]))
                return
            for line in shape.part(event["text"], event["logprobs"]):
                yield _event(line)
            while True:
                try:
                    event = await asyncio.wait_for(events.get(), chat.HEARTBEAT)
                    break
                except TimeoutError:
                    yield ": working\n\n"
        for line in shape.closing(event["finish"], event["usage"] if usage else None):
            yield _event(line)
        yield "data: [DONE]\n\n"
    finally:
        pending.cancelled = True


def _event(body: dict[str, Any]) -> str:
    return "data: " + json.dumps(body, ensure_ascii=False) + "\n\n"


async def whole(
    shape: openai_answers.Shape, pending: PendingAnswer, event: Event, events: Events, request: Request
) -> Response:
    """The whole answer in one response; status 499 where the client has gone."""
    text, logprobs = "", []
    try:
        while "finish" not in event:
            if "error" in event:
                return error(event["error"])
            text += event["text"]
            logprobs += event["logprobs"]
            event = await next_event(events, request)
    except ConnectionResetError:
        return Response(status_code=499)
    finally:
        pending.cancelled = True
    return JSONResponse(shape.whole(text, logprobs, event["finish"], event["usage"]))


def error_body(raised: StudioError) -> dict[str, Any]:
    """An error as OpenAI's API says it, with the studio's own fields beside."""
    code = "model_not_found" if raised.where == "model" else raised.where
    return {
        "error": {
            "message": str(raised),
            "type": "invalid_request_error",
            "param": raised.where,
            "code": code,
            "studio": raised.as_dict(),
        }
    }


def error(raised: StudioError) -> Response:
    """Status 404 for a model that is not here, 503 for a busy device, else 400."""
    status = 404 if raised.where in ("model", "run") else 400
    return JSONResponse(error_body(raised), 503 if isinstance(raised, DeviceError) else status)


def refused(status: int, message: str, hint: str, code: str) -> Response:
    return JSONResponse(
        {"error": {"message": f"{message} {hint}", "type": "invalid_request_error", "param": None, "code": code}},
        status,
    )
