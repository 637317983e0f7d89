"""An open page on a running run works only where something has changed: frames, paintings, changes of the document
and questions are counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import App, chromium_path
from tests.ui.fakes import FakeRun

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
RUN = "2026-11-22-1200-alive"
COUNT = """() => {
  window.counted = {frames: 0, cleared: 0, lines: 0, changes: [], asked: []};
  const frame = Object.getOwnPropertyDescriptor(Window.prototype, "requestAnimationFrame")?.value
    ?? window.requestAnimationFrame;
  window.requestAnimationFrame = (draw) => { counted.frames += 1; return frame.call(window, draw); };
  const pen = CanvasRenderingContext2D.prototype;
  for (const [name, count] of [["clearRect", "cleared"], ["lineTo", "lines"]]) {
    const draw = pen[name];
    pen[name] = function (...at) { counted[count] += 1; return draw.apply(this, at); };
  }
  const ask = window.fetch;
  window.fetch = (address, options) => { counted.asked.push(options?.body); return ask(address, options); };
  new MutationObserver((seen) => {
    for (const one of seen) {
      if (one.type === "attributes" && one.target.getAttribute(one.attributeName) === one.oldValue) continue;
      counted.changes.push(`${one.type} ${one.attributeName || ""} ` +
        `${one.target.className || one.target.parentNode?.className}`);
    }
  }).observe(document, {
    subtree: true, childList: true, characterData: true, attributes: true, attributeOldValue: true
  });
}"""
DRAWN = "Number(document.querySelector('.chart-{} .chart-stage')?.dataset.points || 0)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, FakeRun]]:
    """A served page and a run that is alive and makes a step when it is told to."""
    home = tmp_path_factory.mktemp("quiet") / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        run = FakeRun(RUN, steps=2000, age=7200.0)
        run.start()
        run.train(101)
        with App(home) as app:
            yield app, run
        run.free()


@pytest.fixture
def traced(chromium: Any) -> Iterator[Any]:
    """A tab whose every question for a frame is counted, also those of scripts that keep the browser's own function."""
    context = chromium.new_context(viewport={"width": 1280, "height": 700}, locale="en-GB")
    context.add_init_script("""(() => {
      window.frames_asked = 0;
      const frame = window.requestAnimationFrame;
      window.requestAnimationFrame = (draw) => { window.frames_asked += 1; return frame.call(window, draw); };
    })()""")
    yield context.new_page()
    context.close()


def opened(page: Any, address: str) -> Any:
    """The page when it has drawn itself for the first time, from then on counted."""
    page.goto(address)
    page.wait_for_function("window.studio?.live?.ready", timeout=60000)
    page.wait_for_timeout(2000)
    page.evaluate(COUNT)
    return page


def settled(page: Any) -> int:
    """How many frames were asked for until nobody asks any more.

    The springs of gradio's loading logo swing to their end, some 220 frames, after the logo is gone: four seconds at
    sixty frames a second, longer on a busy computer. They are waited for by a timer, which asks for no frame itself.
    """
    page.wait_for_function("!Object.hasOwn(performance, 'now')", timeout=60000, polling=100)  # frames.js is through
    asked, last = page.evaluate("frames_asked"), -1
    until = time.monotonic() + 120
    while asked != last and time.monotonic() < until:
        page.wait_for_timeout(1500)
        asked, last = page.evaluate("frames_asked"), asked
    return asked


def test_nothing_moves_where_nothing_changed(place: tuple[App, FakeRun], traced: Any) -> None:
    """Opened on a running run, and then on every tab that is gone to from there."""
    page = opened(traced, f"{place[0].address}/?tab=runs&run={RUN}")
    settled(page)
    for tab in ("", "runs", "tune", "data", "chat"):
        if tab:
            page.evaluate("(tab) => studio.open(tab, {run: null})", tab)
            page.wait_for_timeout(2000)
        before = settled(page)
        page.evaluate("Object.assign(counted, {frames: 0, cleared: 0, lines: 0, changes: [], asked: []})")
        page.wait_for_timeout(3000)
        counted = page.evaluate("counted")
        assert page.evaluate("document.getAnimations().length") == 0, tab
        assert page.evaluate("frames_asked") == before, f"some script draws for ever {tab}"
        assert (counted["cleared"], counted["lines"]) == (0, 0), tab
        # the device's own load is measured anew at each question; how long the run has been going is told in minutes
        assert [one for one in counted["changes"] if "device" not in one] == [], tab
        assert counted["asked"], "the page went on asking"


def test_a_new_point_is_added_and_the_curve_is_not_painted_again(place: tuple[App, FakeRun], traced: Any) -> None:
    app, run = place
    page = opened(traced, f"{app.address}/?tab=runs&run={RUN}")
    seen = page.evaluate(DRAWN.format("loss"))
    page.evaluate("Object.assign(counted, {cleared: 0, lines: 0})")
    run.train(seen + 1, first=seen + 1)
    page.wait_for_function(f"{DRAWN.format('loss')} === {seen + 1}", timeout=20000)
    page.wait_for_timeout(300)
    counted = page.evaluate("counted")
    assert counted["cleared"] == 0
    assert 2 <= counted["lines"] <= 8, "one segment for a raw and one for a smoothed line of each chart in sight"


def test_what_was_added_point_by_point_is_the_picture_of_the_whole(place: tuple[App, FakeRun], traced: Any) -> None:
    """The canvas after points that came one by one, against the same canvas painted at once."""
    app, run = place
    page = opened(traced, f"{app.address}/?tab=runs&run={RUN}")
    first = page.evaluate(DRAWN.format("loss"))
    for step in range(first + 1, first + 4):
        run.train(step, first=step)
        page.wait_for_function(f"{DRAWN.format('loss')} === {step}", timeout=20000)
    other = page.evaluate("""() => {
      const chart = document.querySelector('.chart-loss canvas');
      const take = () => chart.getContext('2d').getImageData(0, 0, chart.width, chart.height).data;
      const added = take(), {width, height} = chart;
      window.dispatchEvent(new Event('resize'));
      return new Promise((done) => {
        chart.getContext('2d').clearRect(0, 0, width, height);
        document.querySelector('.curve-tools .smoothing input').dispatchEvent(new Event('input'));
        window.dispatchEvent(new CustomEvent('studio:shade'));
        document.querySelectorAll('.curve-tools .chip')[0].click(); // log scale on
        setTimeout(() => { document.querySelectorAll('.curve-tools .chip')[0].click(); setTimeout(() => {
          const whole = take(); let differ = 0;
          for (let i = 0; i < whole.length; i += 4) if (Math.abs(whole[i + 3] - added[i + 3]) > 96) differ += 1;
          done(differ);
        }, 500); }, 500);
      });
    }""")
    assert other < 40, f"{other} dots differ"


def test_what_is_out_of_sight_draws_and_asks_nothing(place: tuple[App, FakeRun], traced: Any) -> None:
    app, run = place
    traced.set_viewport_size({"width": 1280, "height": 420})
    page = opened(traced, f"{app.address}/?tab=runs&run={RUN}")
    assert page.evaluate(DRAWN.format("rate")) == 0, "below the edge: never drawn yet"
    assert page.evaluate("counted.asked.map(JSON.parse).every((one) => !one.device)"), (
        "the device's panel is below the edge too"
    )
    page.locator(".run-page .chart-rate").scroll_into_view_if_needed()
    page.wait_for_function(f"{DRAWN.format('rate')} > 0", timeout=20000)
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    page.wait_for_timeout(1500)
    page.evaluate("Object.assign(counted, {cleared: 0, lines: 0, changes: [], asked: []})")
    last = page.evaluate(DRAWN.format("loss"))
    run.train(last + 1, first=last + 1)
    page.wait_for_timeout(4000)
    counted = page.evaluate("counted")
    assert (counted["asked"], counted["changes"], counted["cleared"]) == ([], [], 0)
    page.evaluate(
        "studio.store('studio-notify', 'on'); studio.live.hurry()"
    )  # who wants to be told of the end has the list asked for, seldom
    page.wait_for_timeout(3000)
    asked = page.evaluate("counted.asked.map(JSON.parse)")
    assert [sorted(one) for one in asked] == [["device", "list"]]
    page.evaluate(
        "studio.store('studio-notify', 'off'); delete document.hidden; "
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.locator(".run-page .chart-loss").scroll_into_view_if_needed()
    page.wait_for_function(f"{DRAWN.format('loss')} === {last + 1}", timeout=20000)
