"""bench page: the served page in a headless Chromium, on a run that another process writes.

Measured: seconds from a metric written to its point drawn; what the open page costs the processor with a long curve; what a question
costs the server; requests to any other address; eight tabs on one run; start-up beside gradio's own import.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from studio.home import PROJECT

NAME = "2026-01-01-0000-bench"
ASKERS = 8  # pages' worth of questions while the server's cost is measured
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LIMITS = {"metric to point": (1.2, "s"), "page CPU": (10.0, "% of a core"), "server per question": (5.0, "ms"), "requests elsewhere": (0, ""),
          "tabs alive": (8, "of 8"), "start-up beyond import gradio": (1.5, "s")}


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `bench page`."""
    parser.add_argument("--points", type=int, default=20_000, help="points of the curve when the page opens")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the open page is watched")
    parser.set_defaults(run=measure, show=show)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The table as a list of rows {what, value, unit, limit}."""
    from playwright.sync_api import sync_playwright
    home = Path(tempfile.mkdtemp(prefix="studio-bench-"))
    try:
        with Writer(home, args.points) as writer, sync_playwright() as play:
            served, started = _serve(home)
            chromium = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            try:
                found = _watched(chromium, served, writer, args.seconds)
            finally:
                chromium.close()
                served.process.kill()
                served.process.wait()
        found["start-up beyond import gradio"] = _start_up(home, started)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    rows = [{"what": what, "value": round(value, 3), "unit": LIMITS[what][1] if what in LIMITS else unit_of(what), "limit": LIMITS.get(what, (None,))[0]}
            for what, value in found.items()]
    return rows


def unit_of(what: str) -> str:
    return "s" if what.endswith("opened") else "ms" if "question" in what else "s"


class Writer:
    """A run that is alive: `points` steps at once, then one a second, each with the moment it was written."""

    def __init__(self, home: Path, points: int):
        self.folder, self.step, self.written = home / "runs" / NAME, 0, {}
        self._end, self.points = threading.Event(), points

    def __enter__(self) -> Writer:
        self.folder.mkdir(parents=True)
        (self.folder / "config.yaml").write_text("name: bench\nmodel: starter\ndata: {train: sample}\n")
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._file = open(self.folder / "events.jsonl", "w", encoding="utf-8")
        self._say("phase", name="training", from_step=0)
        self._say("plan", steps=2 * self.points + 10_000, epochs=1)
        for _ in range(self.points):
            self._next()
        self._file.flush()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._file.close()
        os.close(self._lock)

    def _say(self, kind: str, **fields: Any) -> None:
        self._file.write(json.dumps({"at": round(time.time(), 3), "kind": kind, "attempt": 1, **fields}) + "\n")

    def _next(self) -> None:
        self.step += 1
        noise = random.random()
        self._say("step", step=self.step, epoch=self.step / 10_000, loss=1 + 2 / (1 + self.step / 500) + 0.2 * noise, learning_rate=1e-4 * (1 + noise),
                  grad_norm=1 + noise, tokens=self.step * 512, tokens_per_second=1500 + 100 * noise, memory=10**9, seconds=self.step * 0.5)

    def _go_on(self) -> None:
        while not self._end.wait(1.0):
            self._next()
            self._file.flush()
            self.written[self.step] = time.time()


class _Served:
    def __init__(self, process: subprocess.Popen[bytes], address: str):
        self.process, self.address = process, address


def _serve(home: Path) -> tuple[_Served, float]:
    """The page in a process of its own, and the seconds until it answered."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {**os.environ, "STUDIO_HOME": str(home), "GRADIO_ANALYTICS_ENABLED": "False"}
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while time.monotonic() - began < 120:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2):
                return _Served(process, f"http://127.0.0.1:{port}"), time.monotonic() - began
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the page did not start")


def _start_up(home: Path, first: float, turns: int = 3) -> float:
    """Seconds from the command to the first answer, beyond those of `import gradio`: medians of turns taken one after the other."""
    starts, imports = [first], [_import_gradio()]
    for _ in range(turns - 1):
        served, started = _serve(home)
        served.process.kill()
        served.process.wait()
        starts.append(started)
        imports.append(_import_gradio())
    return statistics.median(starts) - statistics.median(imports)


def _import_gradio() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import gradio"], check=True, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"})
    return time.monotonic() - began


def _watched(chromium: Any, served: _Served, writer: Writer, seconds: float) -> dict[str, float]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    elsewhere: list[str] = []
    page.on("request", lambda asked: elsewhere.append(asked.url) if not asked.url.startswith((served.address, "data:", "blob:")) else None)
    address = f"{served.address}/?tab=runs&run={NAME}"
    began = time.monotonic()
    page.goto(address)
    page.wait_for_function(f"Number(document.querySelector('.chart-loss .chart-stage')?.dataset.points) >= {writer.points}", timeout=60_000)
    opened = time.monotonic() - began
    page.wait_for_timeout(2000)
    page.evaluate(_NOTE_DRAWN)
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # processor time: a busy computer does not count
    before = _busy(session)
    page.wait_for_timeout(seconds * 1000)
    spent = _busy(session) - before
    drawn = {int(step): at / 1000 for step, at in page.evaluate("Object.entries(window.drawnAt)")}
    delays = [drawn[step] - at for step, at in writer.written.items() if step in drawn]
    asked = page.evaluate(_ANSWERED)
    return {"metric to point": max(delays, default=float("nan")), "metric to point, median": statistics.median(delays) if delays else float("nan"),
            "page CPU": 100 * spent / seconds, "server per question": _per_question(served, page, seconds / 2),
            "question answered (median)": statistics.median(asked),
            "whole curve opened": opened, "requests elsewhere": len(elsewhere), "tabs alive": _tabs(context, address, page)}


_ANSWERED = """performance.getEntriesByType("resource").filter(one => one.name.includes("component_server"))
  .map(one => one.responseEnd - one.requestStart).slice(-20)"""
_NOTE_DRAWN = """() => {
  window.drawnAt = {};
  const stage = document.querySelector(".chart-loss .chart-stage");
  new MutationObserver(() => { window.drawnAt[stage.dataset.last] ??= Date.now(); }).observe(stage, {attributes: true, attributeFilter: ["data-last"]});
}"""


def _busy(session: Any) -> float:
    """Seconds the page's main thread has worked: scripts, layout and painting (DevTools' TaskDuration, in processor time)."""
    return next(item["value"] for item in session.send("Performance.getMetrics")["metrics"] if item["name"] == "TaskDuration")


def _server_seconds(served: _Served) -> float:
    import psutil
    times = psutil.Process(served.process.pid).cpu_times()
    return times.user + times.system


def _per_question(served: _Served, page: Any, seconds: float) -> float:
    """Milliseconds of the server's processor for one question of an open page: ASKERS pages' worth of questions against none, all over HTTP."""
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")  # it asks no more
    page.wait_for_timeout(1500)
    end = threading.Event()
    part = page.evaluate("window.gradio_config.components.find((one) => one.props?.elem_id === 'studio-bar').id")
    track = page.evaluate("(() => { const one = [...studio.live.tracks.values()][0]; return [one.generation, one.points, one.next, studio.live.mark]; })()")
    before = _server_seconds(served)
    time.sleep(seconds)
    idle = _server_seconds(served) - before
    counts: list[int] = []
    askers = [threading.Thread(target=_ask_on, args=(served.address, part, track, number, end, counts)) for number in range(ASKERS)]
    for asker in askers:
        asker.start()
    before = _server_seconds(served)
    time.sleep(seconds)
    cost, asked = _server_seconds(served) - before, len(counts)
    end.set()
    for asker in askers:
        asker.join()
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    return 1000 * (cost - idle) / asked


def _ask_on(address: str, part: int, track: list[Any], number: int, end: threading.Event, counts: list[int]) -> None:
    """What an open page asks, once a second, until the end: the list, the news of one run, the device."""
    generation, points, other, mark = track
    headers = {"Content-Type": "application/json"}
    end.wait(number / ASKERS)
    while not end.wait(1.0):
        ask = {"device": True, "list": mark, "also": [],
               "run": {"id": NAME, "generation": generation, "points": points, "others": other, "stride": 1, "log": None}}
        body = json.dumps({"data": ask, "component_id": part, "fn_name": "poll", "session_hash": f"bench{number}"}).encode()
        request = urllib.request.Request(f"{address}/gradio_api/component_server/", body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            news = json.load(answer)["run"]
        generation, points, other = news["generation"], news["points"], news["next"]
        counts.append(points)


def _tabs(context: Any, address: str, first: Any) -> int:
    """How many of eight tabs on one run draw a new point and answer a click."""
    tabs = [first]
    for _ in range(7):
        tabs.append(context.new_page())
        tabs[-1].goto(address)
    alive = 0
    for number, tab in enumerate(tabs, 1):
        tab.bring_to_front()
        try:
            before = tab.evaluate("Number(document.querySelector('.chart-loss .chart-stage')?.dataset.last || 0)")
            tab.wait_for_function(f"Number(document.querySelector('.chart-loss .chart-stage')?.dataset.last || 0) > {before}", timeout=30_000)
            tab.locator("#run-view-log").click(timeout=5_000)
            alive += 1
        except Exception as error:  # noqa: BLE001 - playwright's timeout, whatever it is called in this release: the tab counts as dead
            print(f"tab {number} is dead: {error}", file=sys.stderr)
    return alive


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        limit = "" if row["limit"] is None else f"(limit {row['limit']})"
        print(f"{row['what']:34} {row['value']:>9} {row['unit']:12} {limit}")
