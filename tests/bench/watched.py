"""A run's page open in a browser of its own, in turn with nobody looking: what watching costs the run, and the
processor over all processes of the browser.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from studio.run import Run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1280,900",
)
SETTLE = 10.0  # seconds until a page that was opened has drawn itself for the first time
ROUNDS = 4  # without and with the page, taken in turn: what else the computer does falls on both
LEAST = 4  # steps in a round
SHARE, CORE = 0.95, 5.0  # of the run's speed that must be left, and percent of a core that the browser may take


class Browser:
    """Chromium without a GPU, with one page. Raises FileNotFoundError where there is none."""

    def __init__(self, address: str):
        self.profile = Path(tempfile.mkdtemp(prefix="studio-browser-"))
        self.process = subprocess.Popen(
            [found(), *FLAGS, f"--user-data-dir={self.profile}", address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def seconds(self) -> float:
        """Seconds that all its processes have worked so far; one that ends meanwhile takes its own with it."""
        total = 0.0
        for one in (me := psutil.Process(self.process.pid), *me.children(recursive=True)):
            try:
                times = one.cpu_times()
                total += times.user + times.system
            except psutil.Error:
                continue
        return total

    def end(self) -> None:
        for one in (*psutil.Process(self.process.pid).children(recursive=True), self.process):
            try:
                one.kill()
            except psutil.Error:
                continue
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


def found() -> str:
    """The browser's program. Raises FileNotFoundError."""
    name = next((path for one in BROWSERS if (path := shutil.which(one))), None)
    if name is None:
        raise FileNotFoundError("chromium")
    return name


def cost(address: str, one: Run, seconds: float) -> list[dict[str, Any]]:
    """Rows {what, value, unit, limit | least}: the run's speed with the page open against without, and the browser's
    share of a core.

    seconds: how long each of ROUNDS rounds watches with the page open, and as long without.

    """
    alone, watched, used = [], [], []
    for number in range(ROUNDS):
        alone.append(speed(one, seconds))
        browser = Browser(f"{address}/?tab=runs&run={one.id}")
        try:
            time.sleep(SETTLE)
            before, began = browser.seconds(), time.monotonic()
            watched.append(speed(one, seconds))
            used.append((browser.seconds() - before) / (time.monotonic() - began))
        finally:
            browser.end()
        print(
            f"round {number + 1}: {alone[-1]:.1f} tokens/s, with the page open {watched[-1]:.1f}",
            file=sys.stderr,
            flush=True,
        )
    return [
        {"what": "tokens/s, nobody looks", "value": round(sum(alone) / ROUNDS, 1), "unit": "", "limit": None},
        {"what": "tokens/s, a page open", "value": round(sum(watched) / ROUNDS, 1), "unit": "", "limit": None},
        {
            "what": "speed kept with a page open",
            "value": round(sum(watched) / max(sum(alone), 1e-9), 3),
            "unit": "",
            "limit": None,
            "least": SHARE,
        },
        {
            "what": "all processes of the browser",
            "value": round(100 * sum(used) / ROUNDS, 1),
            "unit": "%",
            "limit": CORE,
        },
    ]


def speed(one: Run, seconds: float) -> float:
    """Tokens a second that a run learns from now on, for so long: between the first and the last step that fall into
    it.

    On a computer that is too busy for LEAST steps in that time it is waited for them, ten times as long at most.

    """
    seen, until = len(one.events()), time.monotonic() + 10 * seconds
    time.sleep(seconds)
    while (
        len(steps := [event for event in one.events()[seen:] if event["kind"] == "step"]) < LEAST
        and time.monotonic() < until
    ):
        time.sleep(1.0)
    if len(steps) < 2:
        return 0.0
    return (steps[-1]["tokens"] - steps[0]["tokens"]) / max(steps[-1]["monotonic"] - steps[0]["monotonic"], 1e-9)
