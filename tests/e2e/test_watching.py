"""The open page, in a headless Chromium: live curves, many tabs, a server killed under it, languages, phone,
keyboard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.ui import words
from tests.browser import App, chromium_path
from tests.ui.fakes import FakeRun, FakeServer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
LIVE, DONE = "2026-11-22-1200-alive", "2026-11-22-1100-done"
DRAWN = "Number(document.querySelector('.chart-loss .chart-stage')?.dataset.last || 0)"
POINTS = "Number(document.querySelector('.chart-loss .chart-stage')?.dataset.points || 0)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, FakeRun]]:
    """A served page with a finished run and one that lives."""
    home = tmp_path_factory.mktemp("watching") / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        done = FakeRun(DONE, steps=60)
        done.start(alive=False)
        done.train().finish()
        alive = FakeRun(LIVE, steps=2000, seed=1)
        alive.start()
        alive.train(100)
        with App(home) as app:
            yield app, alive
        alive.free()


def drawn(page: Any, step: int, seconds: float = 60) -> None:
    """Wait until the step is on the curve."""
    page.wait_for_function(f"{DRAWN} >= {step}", timeout=1000 * seconds)


def go_on(run: FakeRun, count: int) -> int:
    last = getattr(run, "last", 100)
    run.train(last + count, first=last + 1)
    run.last = last + count
    return run.last


def test_a_new_step_is_drawn_and_every_line_is_a_point(place: tuple[App, FakeRun], tab: Any) -> None:
    app, run = place
    tab.goto(f"{app.address}/?run={LIVE}")
    drawn(tab, getattr(run, "last", 100), 60)
    last = go_on(run, 5)
    drawn(tab, last)
    assert tab.evaluate(POINTS) == last
    assert tab.locator(".bar-job").is_visible()
    assert f"step {last}" in tab.locator(".figures").inner_text()
    tab.reload()
    drawn(tab, last, 60)
    assert tab.evaluate(POINTS) == last


def test_eight_tabs_on_one_run_all_live(place: tuple[App, FakeRun], chromium: Any) -> None:
    app, run = place
    context = chromium.new_context()
    tabs = [context.new_page() for _ in range(8)]
    for page in tabs:
        page.goto(f"{app.address}/?run={LIVE}")
    for page in tabs:
        page.bring_to_front()
        last = go_on(run, 1)
        drawn(page, last, 60)
        page.locator("#run-view-log").click(timeout=60000)
        page.locator("#run-view-curves").click(timeout=60000)
    context.close()


def test_the_server_is_killed_under_the_page(place: tuple[App, FakeRun], tab: Any) -> None:
    app, run = place
    tab.goto(f"{app.address}/?run={LIVE}")
    drawn(tab, getattr(run, "last", 100), 60)
    app.kill()
    tab.locator(".bar-link").wait_for(state="visible", timeout=60000)
    assert "unreachable since" in tab.locator(".bar-link").inner_text()
    last = go_on(run, 20)
    app.start()
    answered = time.monotonic()
    drawn(tab, last, 40)  # five seconds on a computer that is not busy
    print(f"the whole curve {time.monotonic() - answered:.1f} s after the server answered again")
    tab.locator(".bar-link").wait_for(state="hidden", timeout=60000)
    assert tab.evaluate(POINTS) == last


def test_language_and_shade_without_a_reload(place: tuple[App, FakeRun], tab: Any) -> None:
    app, _ = place
    tab.goto(f"{app.address}/?run={DONE}")
    drawn(tab, 60, 60)
    tab.locator(".studio-tongue").click()
    assert "与它对话" in tab.locator(".run-page").inner_text()
    assert tab.evaluate("document.documentElement.lang") == "zh-CN"
    advice = "Gradient checkpointing on, and batch size 1 with accumulation 16."  # "{0}, {1}" is a sentence too
    assert tab.evaluate("advice => studio.told(advice)", advice) == words.translate(advice, "zh") != advice
    advice = "too few rows (4) to say: 67 % ± 12 exact, was 12 %"
    assert tab.evaluate("advice => studio.told(advice)", advice) == words.translate(advice, "zh") != advice
    assert [tab.evaluate("s => studio.duration(s)", s) for s in (3599, 7199)] == ["60 分钟", "2 小时 0 分"]
    assert tab.evaluate("['/a/b.csv', 'Qwen/Qwen3-8B', 'starter'].map(studio.brief)") == [
        "b.csv",
        "Qwen/Qwen3-8B",
        "starter",
    ]
    tab.locator(".studio-shade").click()
    assert tab.evaluate("document.body.classList.contains('dark')")
    tab.reload()
    drawn(tab, 60, 60)
    assert "与它对话" in tab.locator(".run-page").inner_text()


@pytest.mark.parametrize("query", ["?tab=data", f"?tab=runs&compare={LIVE},{DONE}"])
def test_nothing_is_wider_than_a_phone(query: str, place: tuple[App, FakeRun], chromium: Any) -> None:
    """Opened there, and gone on from there to every other view."""
    app, _ = place
    context = chromium.new_context(viewport={"width": 375, "height": 812})
    page = context.new_page()
    page.goto(f"{app.address}/{query}")
    page.wait_for_function("window.studio?.live?.ready", timeout=60000)
    for tab, further in (
        ("", {}),
        ("tune", {}),
        ("runs", {"run": None, "compare": None}),
        ("runs", {"run": LIVE, "compare": None}),
        ("chat", {}),
    ):
        if tab:
            page.evaluate("([tab, further]) => studio.open(tab, further)", [tab, further])
        page.wait_for_timeout(800)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, (tab, further)
    context.close()


def test_no_view_of_a_run_shows_what_only_a_program_calls_something(place: tuple[App, FakeRun], tab: Any) -> None:
    app, _ = place
    tab.goto(f"{app.address}/?run={DONE}")
    drawn(tab, 60, 60)
    for view in ("results", "samples", "log", "order", "checkpoints", "away"):
        tab.locator(f"#run-view-{view}").click()
        tab.wait_for_function(f"document.querySelector('#run-panel-{view}').innerText.trim().length > 20")
        lines = {line.strip() for line in tab.locator(".run-page").inner_text().split("\n")}
        assert not lines & {"null", "undefined", "NaN", "[object Object]"}, view


def test_a_run_is_reached_and_read_by_keyboard(place: tuple[App, FakeRun], tab: Any) -> None:
    app, _ = place
    tab.goto(f"{app.address}/?tab=runs")
    link = tab.locator(f'a[data-key="run {DONE}"]')
    link.wait_for(timeout=60000)
    link.focus()
    tab.keyboard.press("Enter")
    drawn(tab, 60, 60)
    tab.locator("#run-view-curves").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#run-view-results").get_attribute("aria-selected") == "true"
    tab.locator("#run-view-curves").focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "run-view-curves", "drawn anew, it has the focus again"
    stage = tab.locator(".run-page .chart-loss .chart-stage")
    stage.focus()
    tab.keyboard.press("Home")
    assert "step 0" in stage.get_attribute("aria-label")
    tab.keyboard.press("End")
    assert "step 60" in stage.get_attribute("aria-label")


def test_the_log_follows_only_at_its_end(place: tuple[App, FakeRun], tab: Any) -> None:
    app, run = place
    tab.goto(f"{app.address}/?run={LIVE}")
    tab.locator("#run-view-log").click(timeout=60000)
    box = tab.locator(".log-box")
    tab.wait_for_function("document.querySelectorAll('.log-box p').length > 50", timeout=60000)
    at_end = (
        "(() => { const box = document.querySelector('.log-box'); "
        "return box.scrollHeight - box.scrollTop - box.clientHeight < 30; })()"
    )
    assert tab.evaluate(at_end)
    last = go_on(run, 3)
    tab.wait_for_function(f"document.querySelector('.log-box').textContent.includes('step {last}/')", timeout=60000)
    assert tab.evaluate(at_end)
    box.evaluate("box => { box.scrollTop = 0; }")
    last = go_on(run, 3)
    tab.wait_for_function(f"document.querySelector('.log-box').textContent.includes('step {last}/')", timeout=60000)
    assert box.evaluate("box => box.scrollTop") == 0
    assert tab.locator(".log-follow").is_visible()


def test_from_a_finished_run_to_two_answers_in_two_clicks(
    place: tuple[App, FakeRun], tab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _ = place
    monkeypatch.setenv("STUDIO_HOME", str(app.home))
    server = FakeServer(pause=0.02)
    tab.goto(f"{app.address}/?run={DONE}")
    tab.get_by_role("button", name="Chat with it").first.click(timeout=60000)
    tab.wait_for_function("document.querySelector('.compose textarea').value.length > 3", timeout=60000)
    tab.locator(".send").click()
    tab.wait_for_function("document.querySelectorAll('.said[aria-busy=false]').length === 2", timeout=60000)
    assert "wipe it with warm water" in tab.locator(".said").nth(1).inner_text()
    said = tab.locator(".turns").inner_text()
    tab.reload()
    tab.wait_for_function("document.querySelectorAll('.said').length === 2", timeout=60000)
    assert tab.locator(".turns").inner_text() == said
    server.close()
    tab.locator(".compose textarea").fill("And now?")
    tab.locator(".send").click()
    tab.locator(".turn").nth(1).wait_for(timeout=60000)
    assert len(list(Path(app.home / "chats").glob("*.json"))) == 1
