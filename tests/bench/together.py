"""python -m tests.bench.together [--seconds 60]: how soon the owner's poll is answered while everything goes wrong at
once.

A page behind a login, in a process of its own. Forty clients: the owner's own tabs, which ask of models that only the
Hub knows and have notes written; people who watch; strangers who try passwords. The Hub takes connections and never
answers. Three hundred connections are slow: requests half sent, forms half sent, answers that nobody reads. And no file
can grow any more, as on a full disk.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.bench.served import Served
from tests.ui.fakes import FakeRun

LIMIT = 300.0  # milliseconds
CLIENTS, SLOW = 40, 300
POLL, LOOK, LABEL = "/studio/ask/studio-bar/poll", "/studio/ask/tune/look", "/gradio_api/run/label"
RUN = "2026-11-27-1000-one"
PASSWORDS = {"owner": "right horse", "watch": "only looking"}
NAMES = {"owner": "STUDIO_PASSWORD", "watch": "STUDIO_WATCH_PASSWORD"}


@contextlib.contextmanager
def dead_hub() -> Iterator[str]:
    """The address of a Hub that takes every connection, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        held: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


class Asker:
    """Questions to a served page with the cookie of one role."""

    def __init__(self, port: int, role: str = ""):
        self.port, self.cookie = port, ""
        self.bodies: Counter[str] = Counter()  # of answers of 500 and above
        if role:
            self.cookie = self._login(role, PASSWORDS[role])[1]

    def ask(self, path: str, question: dict[str, Any]) -> tuple[int, float]:
        """(status, milliseconds) over a connection of its own."""
        began = time.perf_counter()
        status, _, body = self._post(path, json.dumps(question), "application/json")
        if status >= 500:
            self.bodies[f"{status} {path}: {body[:300]}"] += 1
        return status, 1000 * (time.perf_counter() - began)

    def guess(self) -> int:
        """The status of a login with a wrong password."""
        return self._login("owner", "wrong")[0]

    def _login(self, user: str, password: str) -> tuple[int, str]:
        form = urlencode({"username": user, "password": password})
        status, cookies, _ = self._post("/login", form, "application/x-www-form-urlencoded")
        return status, "; ".join(cookie.split(";")[0] for cookie in cookies)

    def _post(self, path: str, body: str, kind: str) -> tuple[int, list[str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, body, {"Content-Type": kind, "Cookie": self.cookie})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            cookies = [value for key, value in answer.getheaders() if key.lower() == "set-cookie"]
            return answer.status, cookies, text
        finally:
            connection.close()


def client(number: int, owner: Asker, watcher: Asker, end: threading.Event, seen: Counter[int]) -> None:
    """One of CLIENTS, once a second: a model of the Hub, a note, a stranger's password, or an open page's question."""
    order = {"model": f"owner/model-{number % 8}", "data": {"train": "sample"}}
    while not end.wait(1.0):
        with contextlib.suppress(OSError, http.client.HTTPException):
            if number % 5 == 0:
                seen[owner.ask(LOOK, {"order": order})[0]] += 1
            elif number % 5 == 1:
                seen[owner.ask(LABEL, {"data": [RUN, {"note": "x"}]})[0]] += 1
            elif number % 5 == 2:
                seen[Asker(owner.port).guess()] += 1
            else:
                seen[watcher.ask(POLL, {"list": None, "device": True})[0]] += 1


def slow(port: int, cookie: str) -> list[socket.socket]:
    """Connections that have sent half of a head or half of a form, or that read no answer."""
    host, form = f"Host: 127.0.0.1:{port}\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"
    halves = (
        "POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
        f"POST /login HTTP/1.1\r\n{host}{form}Content-Length: 900\r\n\r\nuser",
        f"GET / HTTP/1.1\r\n{host}Cookie: {cookie}\r\n\r\n",
    )
    connections = []
    for number in range(SLOW):
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            connection.sendall(halves[number % len(halves)].encode())
            connections.append(connection)
    return connections


def measure(home: Path, seconds: float) -> tuple[list[float], list[float], Counter[int], Counter[str]]:
    """(milliseconds of the owner's polls before all that, and under it; how often each status was answered to clients;
    the bodies of 500 and above).

    home: the STUDIO_HOME of this process too, empty. Raises AssertionError where a poll is not answered.
    """
    FakeRun(RUN).start(alive=False)
    kept = {name: os.environ.get(name) for name in (*NAMES.values(), "HF_HUB_OFFLINE", "HF_ENDPOINT")}
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, kept)
        os.environ.pop("HF_HUB_OFFLINE", None)
        os.environ |= {NAMES[role]: PASSWORDS[role] for role in NAMES}
        os.environ["HF_ENDPOINT"] = stack.enter_context(dead_hub())
        served = Served(home, options=())
        stack.callback(served.end)
        owner, watcher = Asker(served.port, "owner"), Asker(served.port, "watch")
        owner.ask(LOOK, {"order": {"model": "starter", "data": {"train": "sample"}}})  # what is computed once
        alone = polls(owner, 1.0)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        end, seen = threading.Event(), Counter()
        stack.callback(end.set)
        for number in range(CLIENTS):
            threading.Thread(target=client, args=(number, owner, watcher, end, seen), daemon=True).start()
        for connection in slow(served.port, watcher.cookie):
            stack.callback(connection.close)
        time.sleep(2)
        return alone, polls(owner, seconds), seen, owner.bodies + watcher.bodies


def polls(owner: Asker, seconds: float) -> list[float]:
    """Milliseconds of polls for so long, of eight at least."""
    times: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(times) < 8:
        status, took = owner.ask(POLL, {"list": None})
        assert status == 200, status
        times.append(took)
        time.sleep(0.1)
    return times


def _restore(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def figures(times: list[float]) -> str:
    """The polls in words."""
    middle, late = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    return (
        f"the owner's poll, {len(times)} times: median {middle:.0f} ms, 95 % within {late:.0f} ms, "
        f"most {max(times):.0f} ms (limit {LIMIT:.0f} ms)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.together")
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STUDIO_HOME"] = folder
        alone, times, seen, bodies = measure(Path(folder), seconds)
    print(f"{figures(times)}; alone {statistics.median(alone):.0f} ms")
    print(f"{CLIENTS} clients were answered with {dict(sorted(seen.items()))}, beside {SLOW} slow connections")
    for body, count in bodies.most_common():
        print(f"{count} times {body}")
    return 0 if statistics.quantiles(times, n=20)[-1] < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
