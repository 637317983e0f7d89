"""bench page: the served page in a headless Chromium, on a run that another process writes.

Measured: seconds from a metric written to its point drawn; what the open page costs the processor with a long curve;
what a question costs the server; requests to any other address; eight tabs on one run; start-up beside gradio's own
import.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from tests.bench.living import NAME, Living
from tests.bench.served import Asker, Served, per_question, start_up

TABS = 8  # open on one run; and so many pages' questions while the server's cost is measured
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
UNITS = {
    "page CPU": "% of a core",
    "requests elsewhere": "",
    "tabs alive": f"of {TABS}",
    "server per question": "ms",
    "question answered, median": "ms",
}
LIMITS = {
    "metric to point": 1.2,
    "page CPU": 10.0,
    "server per question": 5.0,
    "requests elsewhere": 0,
    "tabs alive": TABS,
    "start-up beyond import gradio": 1.5,
}


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `bench page`."""
    parser.add_argument("--points", type=int, default=20_000, help="points of the curve when the page opens")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the open page is watched")
    parser.set_defaults(run=measure, show=show)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The table as a list of rows {what, value, unit, limit}. Raises StudioError where there is no browser."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise StudioError(
            "playwright is not installed.", "pip install -r requirements-dev.txt, and a Chromium.", "page"
        ) from error
    home = Path(tempfile.mkdtemp(prefix="studio-bench-"))
    try:
        with Living(home, args.points) as living, sync_playwright() as play:
            _say("the page starts")
            served = Served(home)
            try:
                chromium = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
                found = _watched(chromium, served, living, args.seconds)
                chromium.close()
            except Error as error:
                raise StudioError(
                    f"The browser failed: {error.message.splitlines()[0]}",
                    "Is a Chromium installed? Measure again.",
                    "page",
                ) from error
            finally:
                served.end()
        _say("start-up, three times")
        found["start-up beyond import gradio"] = start_up(home, served.started)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return [
        {"what": what, "value": round(value, 3), "unit": UNITS.get(what, "s"), "limit": LIMITS.get(what)}
        for what, value in found.items()
    ]


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _watched(chromium: Any, served: Served, living: Living, seconds: float) -> dict[str, float]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    elsewhere: list[str] = []
    page.on(
        "request",
        lambda asked: (
            elsewhere.append(asked.url) if not asked.url.startswith((served.address, "data:", "blob:")) else None
        ),
    )
    address = f"{served.address}/?tab=runs&run={NAME}"
    page.goto(address)
    page.wait_for_function(f"{_POINTS} >= {living.points}", timeout=60_000)
    opened = page.evaluate("performance.now()") / 1000
    _say(f"one page, {living.points} points")
    page.wait_for_timeout(2000)
    page.evaluate(_NOTE_DRAWN)
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # processor time: a busy computer does not count
    before = _busy(session)
    page.wait_for_timeout(seconds * 1000)
    spent = _busy(session) - before
    drawn = {int(step): at / 1000 for step, at in page.evaluate("Object.entries(window.drawnAt)")}
    delays = [drawn[step] - at for step, at in living.written.items() if step in drawn]
    answered = page.evaluate(_ANSWERED)
    if not delays or not answered:
        raise StudioError("The open page drew no new point.", "The computer may be too busy: measure again.", "page")
    _say(f"{TABS} pages' questions")
    cost = per_question(served, _askers(page, served), seconds / 2)
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    _say(f"{TABS} tabs")
    return {
        "metric to point": max(delays),
        "metric to point, median": statistics.median(delays),
        "page CPU": 100 * spent / seconds,
        "server per question": cost,
        "question answered, median": statistics.median(answered),
        "whole curve opened": opened,
        "requests elsewhere": len(elsewhere),
        "tabs alive": _tabs(context, address, page),
    }


_POINTS = "Number(document.querySelector('.chart-loss .chart-stage')?.dataset.points)"
_LAST = "Number(document.querySelector('.chart-loss .chart-stage')?.dataset.last || 0)"
_ANSWERED = """performance.getEntriesByType("resource")
  .filter(one => one.name.endsWith("/poll")).map(one => one.responseEnd - one.requestStart).slice(-20)"""
_NOTE_DRAWN = """() => {
  window.drawnAt = {};
  const stage = document.querySelector(".chart-loss .chart-stage");
  new MutationObserver(() => { window.drawnAt[stage.dataset.last] ??= Date.now(); })
    .observe(stage, {attributes: true, attributeFilter: ["data-last"]});
}"""
_PLACE = """(() => { const one = [...studio.live.tracks.values()][0];
  return [studio.live.mark, {generation: one.generation, points: one.points, others: one.next, stride: 1}]; })()"""


def _busy(session: Any) -> float:
    """Seconds the page's main thread has worked: scripts, layout and painting (DevTools' TaskDuration, in processor
    time).
    """
    return next(
        item["value"] for item in session.send("Performance.getMetrics")["metrics"] if item["name"] == "TaskDuration"
    )


def _askers(page: Any, served: Served) -> list[Asker]:
    """TABS askers that stand where the open page stands; it asks no more until it is in sight again."""
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    page.wait_for_timeout(1500)
    mark, place = page.evaluate(_PLACE)
    return [Asker(served, NAME, mark, dict(place), number / TABS) for number in range(TABS)]


def _tabs(context: Any, address: str, first: Any) -> int:
    """How many of TABS tabs on one run draw a new point and answer a click."""
    from playwright.sync_api import Error

    tabs = [first]
    for _ in range(TABS - 1):
        tabs.append(context.new_page())
        tabs[-1].goto(address)
    alive = 0
    for number, tab in enumerate(tabs, 1):
        tab.bring_to_front()
        try:
            before = tab.evaluate(_LAST)
            tab.wait_for_function(f"{_LAST} > {before}", timeout=30_000)
            tab.locator("#run-view-log").click(timeout=30_000)
            alive += 1
        except Error as error:
            _say(f"tab {number} is dead: {error}")
    return alive


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        limit = "" if row["limit"] is None else f"(limit {row['limit']})"
        print(f"{row['what']:34} {row['value']:>9} {row['unit']:12} {limit}")
