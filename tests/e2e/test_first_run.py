"""A newcomer's first run, for real: fresh page, starter model, sample data, three clicks to two answers; the page is
killed on the way.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from studio import config, run
from tests.browser import App, browser, chromium_path
from tests.conftest import FEW_STEPS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
POINTS = "Number(document.querySelector('.chart-loss .chart-stage')?.dataset.points || 0)"
MINUTE = 60_000  # milliseconds
FEW_WORDS = """localStorage.setItem("studio-sampling", '{"max_tokens": 56, "temperature": 0}')"""


def _steps(one: run.Run) -> int:
    return sum(event["kind"] == "step" for event in one.events())


def _send_few_steps(route: Any) -> None:
    """Let Start send its order with a few short steps at a higher rate, which learn as much in a twentieth of the
    time.
    """
    order = config.parse(route.request.post_data_json["data"][0], [*FEW_STEPS, "training.max_steps=12"])
    route.continue_(post_data=json.dumps({"data": [order.to_yaml()]}))


@pytest.mark.timeout(1500)
def test_three_clicks_from_a_fresh_page_to_two_answers(
    with_starter: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every default with --rare; else number, size and rate of the steps in the order that Start sends are changed, and
    the chat's answers are short and computed by one thread.
    """
    clicks, short = 0, not request.config.getoption("--rare")
    if short:
        monkeypatch.setenv("STUDIO_CHAT_THREADS", "1")
    with browser() as chromium, App(with_starter) as app:
        page = chromium.new_page(viewport={"width": 1280, "height": 860}, locale="en-GB")
        if short:
            page.route("**/run/start", _send_few_steps)
        page.goto(app.address)
        start = page.get_by_role("button", name="Start training")
        start.click(timeout=2 * MINUTE)
        clicks += 1
        page.wait_for_function("location.search.includes('run=')", timeout=2 * MINUTE)
        one = run.find("last")
        page.wait_for_function(f"{POINTS} >= 3", timeout=5 * MINUTE)

        page.close()  # every page is closed, and the page's process is killed hard: the run does not notice
        app.kill()
        before = _steps(one)
        assert one.state() in ("running", "starting")
        until = time.monotonic() + 120
        while _steps(one) == before and time.monotonic() < until:
            time.sleep(0.1)
        assert _steps(one) > before, "nobody looks, and it goes on"
        app.start()
        page = chromium.new_page(viewport={"width": 1280, "height": 860}, locale="en-GB")
        if short:
            page.add_init_script(FEW_WORDS)
        page.goto(app.address)
        page.wait_for_function(f"{POINTS} >= {before}", timeout=MINUTE)  # the run still going, with its whole curve

        page.get_by_role("button", name="Chat with it").first.click(timeout=10 * MINUTE)
        clicks += 1
        until = time.monotonic() + 30
        while (
            one.state() != "finished" and time.monotonic() < until
        ):  # the button comes with the saved result, the end a moment later
            time.sleep(0.1)
        assert one.state() == "finished"
        page.wait_for_function("document.querySelector('.compose textarea').value.length > 3", timeout=MINUTE)
        page.locator(".send").click()
        clicks += 1
        page.wait_for_function("document.querySelectorAll('.said[aria-busy=false]').length === 2", timeout=5 * MINUTE)
        base, tuned = (page.locator(".said").nth(place).inner_text() for place in (0, 1))
        assert clicks == 3
        for word in ("Answer:", "Why:", "Try:"):
            assert word in tuned
            assert word not in base
    kept = json.loads(next((with_starter / "chats").glob("*.json")).read_text())
    assert kept
