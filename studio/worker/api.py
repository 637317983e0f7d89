"""The model server's routes: OpenAI's API, and the studio's own to load, unload and end."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import psutil
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from studio import json_text, request_body
from studio.errors import ModelError, StudioError, as_studio_error, internal_error
from studio.worker import openai_answers, responses
from studio.worker.batch_scheduler import BatchScheduler, PendingAnswer
from studio.worker.request import ChatRequest, Names, Sampled, TextRequest, openapi, read

MAX_BYTES = 16 << 20  # bytes of a request: no context holds more text


class Server:
    """The routes. Every one requires the key as `Authorization: Bearer KEY`.

    own: the studio's own server, whose key no other program gets: it also loads and unloads models, and ends itself.
    """

    def __init__(self, scheduler: BatchScheduler, key: str, own: bool = False):
        self.scheduler, self.key, self.own = scheduler, key, own
        self.end: Callable[[], None] = lambda: None
        self.created, self.started = int(time.time()), time.monotonic()

    def app(self) -> Starlette:
        routes = [
            ("/v1/models", self.models, "GET"),
            ("/v1/models/{name:path}", self.model, "GET"),
            ("/v1/chat/completions", self.complete, "POST"),
            ("/v1/completions", self.continue_text, "POST"),
        ]
        own_routes = [
            ("/studio/status", self.status, "GET"),
            ("/studio/load", self.load, "POST"),
            ("/studio/unload", self.unload, "POST"),
            ("/studio/end", self.finish, "POST"),
        ]
        guarded = [
            Route(path, self._guarded(function), methods=[method])
            for path, function, method in routes + (own_routes if self.own else [])
        ]
        # other programs' pages may ask: what protects is the key, which no browser sends by itself
        cors = Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], max_age=600)
        return Starlette(
            routes=[*guarded, Route("/openapi.json", self.describe, methods=["GET"])],
            middleware=[cors],
            exception_handlers={HTTPException: _no_route},
        )

    def _guarded(self, function: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            key = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(key.encode(), self.key.encode()):
                return responses.refused(
                    401, "The key is missing or wrong.", "Send the header Authorization: Bearer KEY.", "invalid_api_key"
                )
            self.scheduler.last_used = time.monotonic()
            try:
                return await function(request)
            except StudioError as error:
                return responses.error(error)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:  # noqa: BLE001 - a request that nobody foresaw ends itself, in words
                known = as_studio_error(error)
                if known is not None:
                    return responses.error(known)
                traceback.print_exc()
                return JSONResponse(responses.error_body(internal_error(error)), 500)

        return guarded

    # -- OpenAI's

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": list(map(self._model, self.scheduler.names))})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.scheduler.names:
            loaded = ", ".join(self.scheduler.names) or "none"
            raise ModelError(f"There is no model {name!r} here.", f"Loaded: {loaded}.", "model")
        return JSONResponse(self._model(name))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.created, "owned_by": "studio"}

    async def describe(self, request: Request) -> Response:
        return JSONResponse(openapi())

    async def complete(self, request: Request) -> Response:
        body = read(ChatRequest, await _body(request))
        messages = [message.plain() for message in body.messages]
        pending = PendingAnswer(body.model, messages, body.sampling(), body.variables())
        return await self._answer(request, pending, body, openai_answers.Chat(body.model, body.callable_tools))

    async def continue_text(self, request: Request) -> Response:
        body = read(TextRequest, await _body(request))
        pending = PendingAnswer(body.model, body.text, {"max_tokens": 16, **body.sampling()})  # OpenAI's default
        return await self._answer(request, pending, body, openai_answers.Text(body.model))

    async def _answer(
        self, request: Request, pending: PendingAnswer, body: Sampled, shape: openai_answers.Shape
    ) -> Response:
        """Answer whole or as a stream. The first event is awaited, so that a refusal has its own status."""
        events: responses.Events = asyncio.Queue()
        loop = asyncio.get_running_loop()
        pending.deliver = lambda event: responses.put(loop, events, event)
        self.scheduler.ask(pending)
        try:
            first = await responses.next_event(events, request)
        except ConnectionResetError:
            pending.cancelled = True
            return Response(status_code=499)
        if "error" in first:
            return responses.error(first["error"])
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            return StreamingResponse(
                responses.stream(shape, pending, first, events, usage),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store"},
            )
        return await responses.whole(shape, pending, first, events, request)

    # -- the studio's own

    async def status(self, request: Request) -> Response:
        return JSONResponse(
            {
                "models": self.scheduler.names,
                "doing": self.scheduler.doing,
                "busy": self.scheduler.busy,
                "pid": os.getpid(),
                "memory": psutil.Process().memory_info().rss,
                "seconds": round(time.monotonic() - self.started, 1),
            }
        )

    async def load(self, request: Request) -> Response:
        order = read(Names, await _body(request))
        return await self._job(partial(self.scheduler.load, token=order.token), order.names)

    async def unload(self, request: Request) -> Response:
        return await self._job(self.scheduler.unload, read(Names, await _body(request)).names)

    async def _job(self, job: Callable[..., None], names: list[str]) -> Response:
        events: responses.Events = asyncio.Queue()
        loop = asyncio.get_running_loop()
        job(names, lambda event: responses.put(loop, events, event))
        event = await events.get()
        return responses.error(event["error"]) if "error" in event else JSONResponse({"models": event["done"]})

    async def finish(self, request: Request) -> Response:
        asyncio.get_running_loop().call_later(0.05, self.end)
        return JSONResponse({"ended": True})


async def _body(request: Request) -> Any:
    """Parse a request's JSON. Raises ModelError where it is none, too long or too slow."""
    try:
        raw = await request_body.gather(request.stream(), MAX_BYTES)
        body = json_text.read(raw)
        if b"\\ud" in raw.lower():
            json.dumps(body, ensure_ascii=False).encode()  # no tokenizer takes half a character
        return body
    except UnicodeEncodeError as error:
        hint = "Send the whole character, or leave it out."
        raise ModelError("The request holds half a character (a lone surrogate).", hint, "body") from error
    except (ValueError, UnicodeError) as error:
        hint = "Send a JSON object with model and messages."
        raise ModelError(f"The request cannot be read: {error}.", hint, "body") from error


async def _no_route(request: Request, error: HTTPException) -> Response:
    return responses.refused(
        error.status_code,
        f"{request.method} {request.url.path} is not served here.",
        "What is stands in /openapi.json.",
        "not_found",
    )
