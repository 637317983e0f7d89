"""python -m studio.worker.serve MODEL… [--port N]: the model server, an OpenAI-style API on loopback behind a key.

The port opens first; torch and the models come in the thread that computes (batch_scheduler.py). One base in memory,
any number of adapters beside it, chosen by `model` in each request.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import threading
import time
from typing import Any

import uvicorn

from studio import address, bounded_http, credentials, device, process
from studio.talk import chat
from studio.worker.api import Server
from studio.worker.batch_scheduler import BatchScheduler


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studio.worker.serve")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--page", action="store_true", help="the page's own server: writes its address to a file, ends when idle"
    )
    parser.add_argument(
        "--detach", action="store_true", help="return at once; the server goes on in a session of its own"
    )
    parser.add_argument(
        "--under", type=int, metavar="PID", help="the process that started it: gone, the server goes too"
    )
    return parser


def main(arguments: list[str]) -> int:
    credentials.receive()
    args = parser().parse_args(arguments)
    if args.under:
        process.die_with_parent(args.under)
    if args.detach:
        if os.fork():
            return 0
        os.setsid()
    key = secrets.token_urlsafe(24) if args.page else os.environ.get("STUDIO_API_KEY") or secrets.token_urlsafe(24)
    os.environ.pop("STUDIO_API_KEY", None)
    lock = chat.lock()
    if args.page and not lock.acquire():
        return 0  # another one was first
    listener = address.listen(args.host, args.port)
    base = f"http://{address.authority(args.host, listener.getsockname()[1])}"
    threads = int(os.environ.get("STUDIO_CHAT_THREADS") or device.cores())
    scheduler = BatchScheduler(threads, names=args.models)
    server = Server(scheduler, key, own=args.page)
    http = uvicorn.Server(
        uvicorn.Config(
            server.app(), http=bounded_http.protocol(), log_level="warning", timeout_graceful_shutdown=1, lifespan="off"
        )
    )
    server.end = lambda: setattr(http, "should_exit", True)
    if args.page:
        chat.announce(base, key)
        threading.Thread(target=_end_when_idle, args=(scheduler, server), daemon=True).start()
    scheduler.start()
    if args.models:
        scheduler.load(args.models, lambda event: _loaded(event, base, key, server))
    http.run(sockets=[listener])
    sys.stdout.flush()
    os._exit(1 if scheduler.failure else 0)  # no waiting for torch to tidy up: the kernel takes the memory back at once


def _loaded(event: dict[str, Any], base: str, key: str, server: Server) -> None:
    if "error" in event:
        print(json.dumps({"error": event["error"].as_dict()}, ensure_ascii=False), flush=True)
        server.scheduler.failure = str(event["error"])
        server.end()
    else:
        print(json.dumps({"address": f"{base}/v1", "key": key, "models": event["done"]}), flush=True)


def _end_when_idle(scheduler: BatchScheduler, server: Server) -> None:
    while scheduler.busy or scheduler.doing or time.monotonic() - scheduler.last_used < chat.IDLE:
        time.sleep(min(5.0, chat.IDLE / 4))
    server.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
