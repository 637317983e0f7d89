"""python -m studio.worker.serve MODEL… [--port N]: the model server, an OpenAI-style API on loopback behind a key.

The port opens first; torch and the models come in the thread that computes (turns.py). One base in memory, any number of
adapters beside it, chosen by `model` in each request.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import secrets
import socket
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from studio import device, json_text, process
from studio.errors import DeviceError, StudioError
from studio.talk import chat
from studio.worker.request import wanted
from studio.worker.turns import Asked, Turns

CANCEL_EVERY = 0.5  # seconds between two looks whether the client is still there


class Server:
    """The routes. Every one wants the key as `Authorization: Bearer KEY`."""

    def __init__(self, turns: Turns, key: str):
        self.turns, self.key = turns, key
        self.end: Callable[[], None] = lambda: None
        self.created, self.began = int(time.time()), time.monotonic()

    def app(self) -> Starlette:
        routes = [("/v1/models", self.models, "GET"), ("/v1/chat/completions", self.complete, "POST"), ("/studio/status", self.status, "GET"),
                  ("/studio/load", self.load, "POST"), ("/studio/unload", self.unload, "POST"), ("/studio/end", self.finish, "POST")]
        return Starlette(routes=[Route(path, self._guarded(function), methods=[method]) for path, function, method in routes])

    def _guarded(self, function: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(given.encode(), self.key.encode()):
                return _refused(401, "The key is missing or wrong.", "Send the header Authorization: Bearer KEY.", "invalid_api_key")
            self.turns.touched = time.monotonic()
            try:
                return await function(request)
            except StudioError as error:
                return _error(error)
        return guarded

    # -- OpenAI's

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model", "created": self.created, "owned_by": "studio"}
                                                        for name in self.turns.names]})

    async def complete(self, request: Request) -> Response:
        try:
            body = json_text.read(await request.body())
            name, messages, sampling, extra = wanted(body)
        except (ValueError, TypeError, AttributeError) as error:
            return _refused(400, f"The request cannot be read: {error}.", "Send a JSON object with model and messages.", "invalid_request_error")
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        asked = Asked(name, messages, sampling, lambda event: _hand(loop, events, event), extra)
        self.turns.ask(asked)
        try:
            first = await _next(events, request)
        except ConnectionResetError:
            asked.cancelled = True
            return Response(status_code=499)
        if "error" in first:
            return _error(first["error"])
        head = {"id": f"chatcmpl-{uuid.uuid4().hex[:24]}", "created": int(time.time()), "model": name}
        if body.get("stream"):
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return StreamingResponse(_stream(head, asked, first, events, usage), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return await _whole(head, asked, first, events, request)

    # -- the studio's own

    async def status(self, request: Request) -> Response:
        return JSONResponse({"models": self.turns.names, "doing": self.turns.doing, "busy": self.turns.busy, "pid": os.getpid(),
                             "memory": chat.memory_of(os.getpid()), "seconds": round(time.monotonic() - self.began, 1)})

    async def load(self, request: Request) -> Response:
        return await self._job(self.turns.load, json_text.read(await request.body()).get("names", []))

    async def unload(self, request: Request) -> Response:
        return await self._job(self.turns.unload, json_text.read(await request.body()).get("names", []))

    async def _job(self, job: Callable[..., None], names: list[str]) -> Response:
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        job([str(name) for name in names], lambda event: _hand(loop, events, event))
        event = await events.get()
        return _error(event["error"]) if "error" in event else JSONResponse({"models": event["done"]})

    async def finish(self, request: Request) -> Response:
        asyncio.get_running_loop().call_later(0.05, self.end)
        return JSONResponse({"ended": True})


def _hand(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[dict[str, Any]], event: dict[str, Any]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(events.put_nowait, event)


async def _next(events: asyncio.Queue[dict[str, Any]], request: Request) -> dict[str, Any]:
    """The next event. Raises ConnectionResetError once the client has gone."""
    while True:
        try:
            return await asyncio.wait_for(events.get(), CANCEL_EVERY)
        except TimeoutError:
            if await request.is_disconnected():
                raise ConnectionResetError from None


async def _stream(head: dict[str, Any], asked: Asked, event: dict[str, Any], events: asyncio.Queue[dict[str, Any]], usage: bool) -> AsyncIterator[str]:
    """Server-sent events in OpenAI's shape. Starlette closes this generator when the client goes away."""
    def line(choices: list[dict[str, Any]], **extra: Any) -> str:
        return "data: " + json.dumps({**head, "object": "chat.completion.chunk", "choices": choices, **extra}, ensure_ascii=False) + "\n\n"

    try:
        yield line([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        while "finish" not in event:
            if "error" in event:
                yield "data: " + json.dumps(_told(event["error"]), ensure_ascii=False) + "\n\n"
                return
            choice = {"index": 0, "delta": {"content": event["text"]}, "finish_reason": None}
            yield line([{**choice, "logprobs": {"content": event["odds"]}} if event["odds"] else choice])
            event = await events.get()
        yield line([{"index": 0, "delta": {}, "finish_reason": event["finish"]}])
        if usage:
            yield line([], usage=event["usage"])
        yield "data: [DONE]\n\n"
    finally:
        asked.cancelled = True


async def _whole(head: dict[str, Any], asked: Asked, event: dict[str, Any], events: asyncio.Queue[dict[str, Any]], request: Request) -> Response:
    text, odds = "", []
    try:
        while "finish" not in event:
            if "error" in event:
                return _error(event["error"])
            text += event["text"]
            odds += event["odds"]
            event = await _next(events, request)
    except ConnectionResetError:
        return Response(status_code=499)
    finally:
        asked.cancelled = True
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": event["finish"], "logprobs": {"content": odds} if odds else None}
    return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": event["usage"]})


def _told(error: StudioError) -> dict[str, Any]:
    code = "model_not_found" if error.where == "model" else error.where
    return {"error": {"message": str(error), "type": "invalid_request_error", "param": error.where, "code": code, "studio": error.as_dict()}}


def _error(error: StudioError) -> Response:
    status = 503 if isinstance(error, DeviceError) else 404 if error.where in ("model", "run") else 400
    return JSONResponse(_told(error), status)


def _refused(status: int, message: str, hint: str, code: str) -> Response:
    return JSONResponse({"error": {"message": f"{message} {hint}", "type": "invalid_request_error", "param": None, "code": code}}, status)


# -- the process


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m studio.worker.serve")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--page", action="store_true", help="the page's own server: tells its address in a file, ends when idle")
    parser.add_argument("--detach", action="store_true", help="return at once; the server goes on in a session of its own")
    parser.add_argument("--under", type=int, metavar="PID", help="the process that started it: gone, the server goes too")
    args = parser.parse_args(arguments)
    if args.under:
        process.die_with(args.under)
    if args.detach:
        if os.fork():
            return 0
        os.setsid()
    key = secrets.token_urlsafe(24) if args.page else os.environ.get("STUDIO_API_KEY") or secrets.token_urlsafe(24)
    os.environ.pop("STUDIO_API_KEY", None)
    lock = chat.lock()
    if args.page and not lock.take():
        return 0  # another one was first
    bound = socket.create_server((args.host, args.port))
    address = f"http://{args.host}:{bound.getsockname()[1]}"
    turns = Turns(threads=int(os.environ.get("STUDIO_CHAT_THREADS") or device.cores()), names=args.models)
    server = Server(turns, key)
    http = uvicorn.Server(uvicorn.Config(server.app(), log_level="warning", timeout_graceful_shutdown=1, lifespan="off"))
    server.end = lambda: setattr(http, "should_exit", True)
    if args.page:
        chat.announce(address, key)
        threading.Thread(target=_end_when_idle, args=(turns, server), daemon=True).start()
    turns.start()
    if args.models:
        turns.load(args.models, lambda event: _loaded(event, address, key, server))
    http.run(sockets=[bound])
    sys.stdout.flush()
    os._exit(1 if turns.failure else 0)  # no waiting for torch to tidy up: the kernel takes the memory back at once


def _loaded(event: dict[str, Any], address: str, key: str, server: Server) -> None:
    if "error" in event:
        print(json.dumps({"error": event["error"].as_dict()}, ensure_ascii=False), flush=True)
        server.turns.failure = str(event["error"])
        server.end()
    else:
        print(json.dumps({"address": f"{address}/v1", "key": key, "models": event["done"]}), flush=True)


def _end_when_idle(turns: Turns, server: Server) -> None:
    while turns.busy or turns.doing or time.monotonic() - turns.touched < chat.IDLE:
        time.sleep(min(5.0, chat.IDLE / 4))
    server.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
