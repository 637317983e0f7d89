"""The open page for long, and in every shape: a large curve and log, a night of questions, any width, keyboard,
links, what stays in view.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser import App, chromium_path
from tests.e2e.test_rough import POINTS, known_runs, opened
from tests.ui.fakes import FakeRun

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
POLLS = int(os.environ.get("STUDIO_TEST_POLLS", "600"))


@pytest.fixture(scope="module", autouse=True)
def speaking(app: App) -> None:
    """A run that stands in the list."""
    fake = FakeRun("2026-11-22-1000-speaking", steps=60)
    fake.start(alive=False)
    fake.train().finish()


def test_a_long_curve_and_a_large_log(app: App, tab: Any) -> None:
    fake = FakeRun("2026-11-22-1100-long", steps=20_000)
    fake.start(alive=False)
    with open(fake.events_file, "a", encoding="utf-8") as diary:
        for step in range(1, 20_001):
            values = {"step": step, "loss": 1 + 100 / (step + 50), "tokens": step * 500, "grad_norm": 1.0}
            diary.write(json.dumps({"at": fake.now + step, "kind": "step", "attempt": 1, **values}) + "\n")
    fake.print("\n".join(f"[12:00:00] line {n} " + "x" * 60 for n in range(65_000)))
    assert fake.log.stat().st_size > 5_000_000
    tab.goto(f"{app.address}/?run=2026-11-22-1100-long")
    tab.wait_for_function(f"{POINTS} === 20000", timeout=60_000)
    tab.locator("#run-view-log").click()
    tab.wait_for_function("document.querySelector('.log-box').textContent.includes('line 64999 ')", timeout=60_000)
    assert tab.evaluate("document.querySelectorAll('.log-box p').length") < 4000
    with tab.expect_download(timeout=60_000) as file:
        tab.get_by_role("button", name="Whole file").click()
    assert Path(file.value.path()).stat().st_size == fake.log.stat().st_size
    with tab.expect_download(timeout=60_000) as file:
        tab.locator("#run-view-curves").click()
        tab.get_by_role("button", name="Save CSV").click()
    assert len(Path(file.value.path()).read_text().splitlines()) == 20_002, "a head, the untouched base, every step"


def test_from_narrow_to_wide_and_back(app: App, tab: Any) -> None:
    tab.goto(f"{app.address}/?tab=tune")
    tab.wait_for_function("window.studio?.live?.ready", timeout=60_000)
    for name, run in (("tune", None), ("data", None), ("runs", "2026-11-22-1100-long")):
        tab.evaluate("([name, run]) => studio.open(name, {run})", [name, run])
        for width in (375, 2560, 720, 1001, 375):
            tab.set_viewport_size({"width": width, "height": 800})
            tab.wait_for_timeout(200)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
            stages = tab.evaluate("""[...document.querySelectorAll('.chart-stage')].filter(one => one.offsetParent)
              .map(one => [one.clientWidth, one.querySelector('canvas').clientWidth])""")
            assert all(stage == canvas for stage, canvas in stages), name
    assert stages, "the last was a run's"


def test_a_night_of_questions_keeps_no_memory(app: App, tab: Any) -> None:
    """The page's own loop, turned as fast as it goes. What grows must be the run's points, a few dozen bytes each,
    and nothing else.
    """
    fake = FakeRun("2026-11-22-1200-night", steps=100_000)
    fake.start()
    fake.train(300)
    tab.goto(f"{app.address}/?run=2026-11-22-1200-night")
    tab.wait_for_function(f"{POINTS} === 300", timeout=60_000)
    tab.locator("#run-view-log").click()
    session = tab.context.new_cdp_session(tab)
    process = psutil.Process(app.process.pid)

    def size() -> tuple[float, float, float]:
        session.send("HeapProfiler.collectGarbage")
        found = {item["name"]: item["value"] for item in session.send("Performance.getMetrics")["metrics"]}
        return found["JSHeapUsedSize"], found["Nodes"], process.memory_info().rss

    def ask(count: int) -> None:
        tab.evaluate(
            """count => new Promise((done) => { let left = count;
          const off = studio.live.listen(() => {
            left -= 1; if (left > 0) setTimeout(() => studio.live.hurry()); else { off(); done(); } });
          studio.live.hurry(); })""",
            count,
        )

    session.send("Performance.enable")
    ask(POLLS // 3)
    before = size()
    at = 301
    for _ in range(10):
        for _ in range(5):
            fake.step(at)
            at += 1
        ask(POLLS // 10)
    after = size()
    heap, nodes, rss = (new - old for new, old in zip(after, before))
    print(f"{POLLS} questions: page heap {heap / 1e6:+.2f} MB, nodes {nodes:+.0f}, server {rss / 1e6:+.2f} MB")
    assert heap < before[0] / 2
    assert nodes < 2000
    assert rss < before[2] / 5  # a heap of megabytes grew by 0.08 MB, the server by 0.02
    fake.free()


def test_back_and_forward_and_links(app: App, tab: Any) -> None:
    opened(tab, f"{app.address}/?tab=tune")
    tab.get_by_role("link", name="Data").click()
    tab.get_by_role("link", name="Runs").click()
    tab.locator('a[data-key="run 2026-11-22-1000-speaking"]').click()
    tab.wait_for_function(f"{POINTS} > 0", timeout=60_000)
    assert "run=2026-11-22-1000-speaking" in tab.url
    tab.go_back()
    tab.locator(".runs-table").wait_for(timeout=60_000)
    tab.go_back()
    assert tab.evaluate("studio.tab()") == "data"
    tab.go_forward()
    tab.go_forward()
    tab.locator(".run-page").wait_for(timeout=60_000)
    began = time.monotonic()
    other = tab.context.new_page()
    other.goto(tab.url)
    other.wait_for_function(f"{POINTS} > 0", timeout=60_000)
    print(f"a run's link opened in {time.monotonic() - began:.1f} s")


def test_a_first_run_by_keyboard_alone(app: App, tab: Any) -> None:
    known = known_runs()
    opened(tab, f"{app.address}/?tab=tune")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the main part"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.textContent") == "Start training"
    tab.keyboard.press("Enter")
    tab.wait_for_function("location.search.includes('run=')", timeout=60_000)
    assert len(known_runs() - known) == 1


def test_reduced_motion_is_kept_to(app: App, chromium: Any) -> None:
    context = chromium.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{app.address}/?tab=runs")
    page.wait_for_function("window.studio?.live?.ready", timeout=60_000)
    moving = page.evaluate("""[...document.querySelectorAll('*')].filter((one) => { const style = getComputedStyle(one);
      return Math.max(...style.animationDuration.split(',').map(parseFloat),
        ...style.transitionDuration.split(',').map(parseFloat)) > 0.001; }).length""")
    assert moving == 0
    context.close()


def test_a_notice_when_a_run_ends(app: App, chromium: Any) -> None:
    fake = FakeRun("2026-11-22-1300-noticed", steps=50)
    fake.start()
    fake.train(20)
    context = chromium.new_context(locale="en-GB", permissions=["notifications"])
    page = context.new_page()
    page.add_init_script("""window.notices = [];
    window.Notification = class { constructor(title, more) { window.notices.push([title, more.body]); }
      static permission = 'granted'; static requestPermission() { return Promise.resolve('granted'); } };""")
    page.goto(f"{app.address}/?run=2026-11-22-1300-noticed")
    page.get_by_role("button", name="Notify me").click(timeout=60_000)
    page.wait_for_timeout(1500)
    fake.train(50, first=21)
    fake.finish()
    page.wait_for_function("window.notices.length === 1", timeout=60_000)
    assert page.evaluate("window.notices[0][0]") == "noticed: finished"
    context.close()


@pytest.mark.parametrize("size", [(1280, 640), (375, 812)])
def test_header_bar_and_start_stay_in_view(app: App, chromium: Any, size: tuple[int, int]) -> None:
    fake = FakeRun("2026-11-22-1400-shown", steps=500)
    fake.start()
    fake.train(20)
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, locale="en-GB")
    page = context.new_page()
    opened(page, f"{app.address}/?tab=tune")
    page.locator(".bar-job").wait_for(timeout=60_000)
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_timeout(300)
    tops = page.evaluate("""['#studio-header', '#studio-bar', '.summary .primary']
      .map((one) => document.querySelector(one).getBoundingClientRect())
      .map((box) => [box.top, box.bottom])""")
    assert page.evaluate("scrollY") > 300
    (top, bottom), (bar, _), (start, end) = tops
    assert top == 0
    assert abs(bar - bottom) <= 2
    assert start > bar
    assert end <= size[1]
    fake.finish()
    fake.folder.rename(fake.folder.with_name("2026-11-22-1400-shown-" + str(size[1])))
    context.close()
