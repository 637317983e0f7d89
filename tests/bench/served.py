"""The page served in a process of its own, for a bench: how long it takes to start, and what a question costs its
processor.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.home import PROJECT

PATIENCE = 180.0  # seconds until the page must answer


class Served:
    """`python app.py` on a free port. started: seconds from the command to the first answer."""

    def __init__(self, home: Path, options: tuple[str, ...] = ("--no-token",)):
        self.home, self.port = home, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        environment = {**os.environ, "STUDIO_HOME": str(home), "GRADIO_ANALYTICS_ENABLED": "False"}
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "studio.page", "--port", str(self.port), *options],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.started = self._answers(began)

    def _answers(self, began: float) -> float:
        while time.monotonic() - began < PATIENCE and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.address, timeout=2):
                    return time.monotonic() - began
            except OSError:
                time.sleep(0.05)
        self.end()
        raise StudioError("The page did not start.", "Run python app.py in a terminal and read what it says.", "page")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def seconds(self) -> float:
        """Seconds its processor has worked so far."""
        import psutil

        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_up(home: Path, first: float, turns: int = 3) -> float:
    """Seconds from the command to the first answer, beyond those of `import gradio`: medians of turns taken one after
    the other.
    """
    starts, imports = [first], [_import_gradio()]
    for _ in range(turns - 1):
        served = Served(home)
        served.end()
        starts.append(served.started)
        imports.append(_import_gradio())
    return statistics.median(starts) - statistics.median(imports)


def _import_gradio() -> float:
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "import gradio"], check=True, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    )
    return time.monotonic() - began


class Asker(threading.Thread):
    """What one open page asks, once a second, until it is ended: the list, the news of one run, the device. Over one
    connection, as a browser does.
    """

    def __init__(self, served: Served, run: str, mark: str | None, place: dict[str, Any], wait: float):
        super().__init__(daemon=True)
        self.served, self.run_id, self.mark, self.place, self.wait, self.answers, self._end = (
            served,
            run,
            mark,
            place,
            wait,
            0,
            threading.Event(),
        )

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=20)
        self._end.wait(self.wait)
        while not self._end.wait(1.0):
            ask = {"device": True, "list": self.mark, "also": [], "run": {"id": self.run_id, "log": None, **self.place}}
            connection.request(
                "POST", "/studio/ask/studio-bar/poll", json.dumps(ask), {"Content-Type": "application/json"}
            )
            news = json.loads(connection.getresponse().read())["run"]
            self.place |= {"generation": news["generation"], "points": news["points"], "others": news["next"]}
            self.answers += 1
        connection.close()

    def end(self) -> None:
        self._end.set()
        self.join()


def per_question(served: Served, askers: list[Asker], seconds: float) -> float:
    """Milliseconds of the server's processor for one question: these askers' questions against none, for so long
    each.
    """
    before = served.seconds()
    time.sleep(seconds)
    idle = served.seconds() - before
    for asker in askers:
        asker.start()
    time.sleep(2.0)  # until each has asked
    before, counted = served.seconds(), sum(asker.answers for asker in askers)
    time.sleep(seconds)
    spent, asked = served.seconds() - before, sum(asker.answers for asker in askers) - counted
    for asker in askers:
        asker.end()
    if not asked:
        raise StudioError(
            "The page answered no question while it was measured.",
            "The computer may be too busy: measure again.",
            "page",
        )
    return 1000 * (spent - idle) / asked
