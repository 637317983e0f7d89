"""Who may only look, in Chromium: a watcher with the second password, and an anonymous visitor of a Space. Every tab,
every view of every kind of run, and every button that is not grey is pressed: nothing is refused, nothing told in red.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio import judge, queue, run
from studio.ui import races
from tests.browser import App, chromium_path, watch
from tests.ui.fakes import FakeRun
from tests.ui.test_on_a_space import LOGIN, SPACE
from tests.ui.test_races import raced

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
WHOLE, LIVE = "2026-11-22-1100-whole", "2026-11-22-1200-alive"
VIEWS = ("curves", "results", "samples", "log", "order", "checkpoints", "away")
READY = "window.studio?.live?.ready && !studio.may('start')"
REFUSED = """[...document.querySelectorAll("[data-job]")]
  .filter((node) => !node.disabled && !studio.may(node.dataset.job)).map((node) => node.dataset.job)"""
PRESS = """async (where) => {
  const wait = (time) => new Promise((done) => setTimeout(done, time)), wrong = [], start = location.href;
  for (let place = 0; place < 80; place += 1) {
    const offered = [...document.querySelectorAll(`${where} :is(button, summary, input[type=checkbox])`)]
      .filter((node) => node.offsetParent && !node.disabled && node.getAttribute("role") !== "tab"
        && !(node.dataset.job || "").startsWith("chat"));
    if (place >= offered.length) break;
    const name = offered[place].innerText || offered[place].getAttribute("aria-label");
    offered[place].click();
    await wait(20);
    document.querySelectorAll("dialog[open]").forEach((one) => one.close());
    for (const note of document.querySelectorAll(".telling.bad")) {
      wrong.push(`${name}: ${note.innerText}`);
      note.remove();
    }
    if (location.href !== start) { history.back(); await wait(300); }
  }
  await wait(300);
  return wrong.concat([...document.querySelectorAll(".telling.bad")].map((note) => note.innerText));
}"""


def whole() -> None:
    """A finished run with all that can lie beside one: evaluated, judged, searched, taken away; and one that lives."""
    done = FakeRun(WHOLE, steps=40)
    done.start(alive=False)
    done.train().finish().evaluated().influenced()
    (done.folder / "judge").mkdir()
    counts = {"wins": 40, "ties": 10, "losses": 10, "flipped": 3, "unreadable": 1, "of": 60}
    figures = {"win_rate": 0.75, "low": 0.62, "high": 0.84, **counts}
    found = {
        "at": 1.0,
        "state": "done",
        "why": "",
        "url": "http://10.0.0.9/secret",
        "model": "m",
        "prompt": judge.PROMPT,
    }
    (done.folder / "judge" / "results.json").write_text(json.dumps({**found, **figures, "rows": []}))
    home = done.folder.parents[1]
    (home / "exports" / WHOLE).mkdir(parents=True)
    file = home / "exports" / WHOLE / "adapter.zip"
    file.write_bytes(b"PK")
    (file.parent / "adapter.json").write_text(json.dumps({"path": str(file), "bytes": 2, "proof": None}))
    (file.parent / "adapter.log").write_text("written\n")


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path
) -> Iterator[tuple[Path, list[str]]]:
    """(the home, its runs)."""
    folder = tmp_path_factory.mktemp("looking") / "home"
    folder.mkdir()
    order = {"model": str(tiny_model), "data": {"train": str(tiny_data)}, "training": {"max_steps": 4}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(folder))
        patch.setattr(queue, "advance", lambda: None)
        whole()
        race = run.find(races.start_race(json.dumps(order), ["method.rank=2,4"])["run"])
        raced(race)
        plan = run.find(races.start_plan(json.dumps(order), 60)["run"])
        curve = [{"rows": rows, "loss": 9 / rows, "low": 8 / rows, "high": 10 / rows} for rows in (10, 20, 38)]
        verdict = {"verdict": "enough", "sentence": "These rows are enough.", "base_loss": 3.0, "few_shot_loss": 2.0}
        plan.append("end", state="finished", plan={**verdict, "curve": curve, "runs": []}, attempt=1)
        alive = FakeRun(LIVE, steps=2000)
        alive.start()
        alive.train(60)
        yield folder, [WHOLE, race.id, plan.id, LIVE]
        alive.free()


@pytest.fixture(params=["watch", "visitor"])
def looker(
    request: pytest.FixtureRequest, home: tuple[Path, list[str]], chromium: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, str]]:
    """(a tab, the page's address) of somebody who may only look."""
    for name in ("STUDIO_PASSWORD", "STUDIO_OPEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    environment = {"STUDIO_PASSWORD": "right horse", "STUDIO_WATCH_PASSWORD": "only looking"}
    for name, value in (environment if request.param == "watch" else SPACE | LOGIN).items():
        monkeypatch.setenv(name, value)
    with App(home[0], options=("--host", "127.0.0.1" if request.param == "watch" else "0.0.0.0")) as app:
        context = chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en-GB")
        if request.param == "watch":
            told = context.request.post(f"{app.address}/login", form={"username": "watch", "password": "only looking"})
            assert told.ok
        page = context.new_page()
        page.wrong = watch(page)
        page.on(
            "response",
            lambda answer: page.wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None,
        )
        yield page, app.address
        context.close()


def wrong_after_pressing(page: Any, where: str) -> list[str]:
    """Press all that is offered in the part of the page in sight; [button: what it told in red]."""
    return page.evaluate(PRESS, where)


def test_nothing_is_refused_and_every_button_works(home: tuple[Path, list[str]], looker: tuple[Any, str]) -> None:
    page, address = looker
    page.goto(f"{address}/?tab=runs")
    page.wait_for_function(READY, timeout=60000)
    for tab in ("data", "tune", "runs", "chat"):
        page.locator(f".studio-nav a[data-tab={tab}]").click()
        page.wait_for_timeout(500)
        assert page.evaluate(REFUSED) == [], tab
        if tab in ("data", "runs"):
            assert wrong_after_pressing(page, f"#tab-{tab}") == []
    for name in home[1]:
        for view in VIEWS if name == WHOLE else VIEWS[:2]:
            page.evaluate("(run) => studio.open('runs', {run, compare: null})", name)
            page.locator(f"#run-view-{view}").click(timeout=20000)
            page.wait_for_timeout(200)
            assert page.evaluate(REFUSED) == [], (name, view)
            assert wrong_after_pressing(page, f"#run-panel-{view}") == [], (name, view)
    assert "10.0.0.9" not in page.content()
    assert [seen for seen in page.wrong if not seen.startswith("external: https://fonts.")] == []  # gradio's on a Space
