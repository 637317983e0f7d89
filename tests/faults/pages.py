"""The real page's process beside the terminal: each sees what the other starts, and a page that is killed changes
nothing.
"""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

from studio.home import home
from studio.run import runs, summary
from tests.browser import App
from tests.faults import disks, stage

ORDER = "name: {0}\ndata: {{train: sample}}\n"
SOON = 5.0  # seconds


def both_ways() -> str:
    """A run started in the terminal is on the page within 5 s, and the other way round."""
    with stage.surroundings(**stage.fake(pause=0.1)):
        app = App(home()).start()
        try:
            _listed(app)
            (home() / "order.yaml").write_text(ORDER.format("typed"))
            typed = json.loads(disks.terminal("train", str(home() / "order.yaml"), "--detach", "--json").stdout)["run"]
            there = _until_true(lambda: typed in _listed(app))
            clicked = ask(app, "/gradio_api/run/start", {"data": [ORDER.format("clicked")]})["data"][0]["run"]
            here = _until_true(lambda: clicked in disks.terminal("runs").stdout)
            for run in runs():
                stage.until(lambda run=run: stage.ended(run), "its end")
                stage.noticed(run, "finished")
        finally:
            app.kill()
    return f"terminal to page {there:.1f} s, page to terminal {here:.1f} s"


def page_killed() -> None:
    """Three runs are queued on the page, the middle one bad; the page is killed; all three end as they should, and a
    new page says so.
    """
    with stage.surroundings(**stage.fake(pause=0.2)):
        app = App(home()).start()
        try:
            for name in ("first", "bad", "last"):
                ask(app, "/gradio_api/run/start", {"data": [ORDER.format(name)]})
            app.kill()
            named = {summary(run)["name"]: run for run in runs()}
            assert len(named) == 3, named
            for run in named.values():
                stage.until(lambda run=run: stage.ended(run), "its end")
            app.start()
            said = _listed(app)
            assert [said[named[name].id]["state"] for name in ("first", "bad", "last")] == [
                "finished",
                "failed",
                "finished",
            ]
            assert "this run is bad" in said[named["bad"].id]["cause"]
        finally:
            app.kill()
    stage.noticed(named["bad"], "failed", "this run is bad", "log")
    for name in ("first", "last"):
        stage.check_fake(named[name])


def _listed(app: App) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in ask(app, "/studio/ask/studio-bar/poll", {"list": None})["list"]["rows"]}


def ask(app: App, path: str, question: dict[str, Any]) -> dict[str, Any]:
    post = urllib.request.Request(
        app.address + path, json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(post, timeout=stage.WAIT) as answer:
        return json.loads(answer.read())


def _until_true(true: Any) -> float:
    """Seconds until it is."""
    began = time.monotonic()
    stage.until(true, "it is seen", max(SOON, stage.within[0] / 2))
    return time.monotonic() - began
