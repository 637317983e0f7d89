"""What a page that nobody has open takes of the processor, beside a page of gradio's own with one line in it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from studio.errors import StudioError
from tests.bench.served import Served, free_port

BARE = """import sys, gradio
with gradio.Blocks(analytics_enabled=False) as page:
    gradio.HTML("bare")
page.launch(server_port=int(sys.argv[1]), quiet=True)"""
MORE = 0.5  # percent of a core that ours may take beyond it
PATIENCE, SETTLE = 120.0, 5.0  # seconds until it must answer, and until both have done what is done once


def cost(served: Served, seconds: float) -> list[dict[str, Any]]:
    """Rows {what, value, unit, limit} in percent of a core, of both at the same time: what else the computer does falls
    on both.
    """
    port = free_port()
    bare = subprocess.Popen(
        [sys.executable, "-c", BARE, str(port)],
        env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(served.home),
    )
    try:
        _answers(port, bare)
        time.sleep(SETTLE)
        found = [psutil.Process(one.pid) for one in (bare, served.process)]
        before, began = [_seconds(one) for one in found], time.monotonic()
        time.sleep(seconds)
        theirs, ours = (
            100 * (_seconds(one) - at) / (time.monotonic() - began) for one, at in zip(found, before, strict=True)
        )
    finally:
        bare.kill()
        bare.wait()
    return [
        {"what": "a bare gradio page, nobody looks", "value": round(theirs, 2), "unit": "%", "limit": None},
        {"what": "this page, nobody looks", "value": round(ours, 2), "unit": "%", "limit": None},
        {"what": "more than a bare gradio page", "value": round(ours - theirs, 2), "unit": "%", "limit": MORE},
    ]


def _seconds(one: psutil.Process) -> float:
    times = one.cpu_times()
    return times.user + times.system


def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise StudioError("A bare gradio page did not start.", "Try it: python -c 'import gradio'.", "page")
