"""A headless Chromium and a served page in a process of its own, for tests and shots.

Nothing but the page's own address is reached.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.home import PROJECT

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str | None:
    """A Chromium of the system; None where there is none (then playwright's own is tried)."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A playwright Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield opened
        opened.close()


def free_port() -> int:
    """A port at which nobody listens, below those that a system hands out by itself and apart from those of the other
    workers: nobody takes it before it is listened at.
    """
    first = 20_000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw9").removeprefix("gw"))
    while True:
        port = first + secrets.randbelow(1000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class App:
    """`python app.py` on a port, which can be killed and started again under an open page."""

    def __init__(self, home: Path, port: int | None = None, options: tuple[str, ...] = ()):
        self.home, self.port, self.options, self.process = home, port or free_port(), options, None
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> App:
        environment = {
            **os.environ,
            "STUDIO_HOME": str(self.home),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
        }
        log = open(self.home / "page.log", "ab")  # noqa: SIM115 - handed to the child
        self.process = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(self.port), *(self.options or ("--no-token",))],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        until = time.monotonic() + 180
        while time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(self.address, timeout=2):
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"the page did not start: {(self.home / 'page.log').read_text()[-2000:]}")

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)

    def __enter__(self) -> App:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def watch(page: Any) -> list[str]:
    """Collects what must not happen on a page: script errors, and requests to any other address."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: (
            found.append(f"external: {request.url}")
            if not request.url.startswith(("http://127.0.0.1", "data:", "blob:", "about:"))
            else None
        ),
    )
    return found
