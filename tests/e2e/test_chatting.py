"""Chat and take-away in a headless Chromium, with a real run of the tiny model: a model server killed under the page,
an export through
the page, and the report opened with no network."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.run import Run
from studio.talk import chat
from tests.browser import App, browser, chromium_path, watch
from tests.worker.carrying import carry, order, rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
MINUTE = 60_000  # milliseconds
ANSWERED = "document.querySelectorAll('.said[aria-busy=false]').length === {}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[tuple[App, Run]]:
    """A served page whose home holds one finished run."""
    home = tmp_path_factory.mktemp("chatting") / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        patch.setenv("STUDIO_CHAT_THREADS", "1")
        run = order(tiny_model, rows(home / "rows.json"), "training.max_steps=4", "name=mine")
        carry(run)
        with App(home) as app:
            yield app, run
        chat.end()


@pytest.fixture(scope="module")
def page(place: tuple[App, Run]) -> Iterator[Any]:
    with browser() as chromium:
        context = chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en-GB", accept_downloads=True)
        opened = context.new_page()
        seen = watch(opened)
        yield opened
        assert seen == []


def test_a_killed_model_server_costs_a_sentence_and_a_click(place: tuple[App, Run], page: Any) -> None:
    app, run = place
    page.goto(f"{app.address}/?tab=chat&model={run.id}")
    page.get_by_text("2 in memory").wait_for(timeout=2 * MINUTE)
    page.locator(".compose textarea").fill("Say the number 3.")
    page.locator(".send").click()
    page.wait_for_function(ANSWERED.format(2), timeout=MINUTE)
    os.kill(chat.server().status()["pid"], signal.SIGKILL)
    page.get_by_text("The model server has ended.").wait_for(timeout=MINUTE)
    page.get_by_role("button", name="Restart it").click()
    page.get_by_text("2 in memory").wait_for(timeout=MINUTE)
    page.locator(".compose textarea").fill("Say the number 4.")
    page.locator(".send").click()
    page.wait_for_function(ANSWERED.format(4), timeout=MINUTE)
    page.get_by_role("button", name="Unload").click()
    page.get_by_text(re.compile(r"Unloaded; .* given back")).wait_for(timeout=MINUTE)
    assert not chat.server().ready()


def test_a_model_is_taken_away_through_the_page(place: tuple[App, Run], page: Any, tmp_path: Path) -> None:
    """GGUF, 16 bits: written by a process of its own, with its stages told, proven, downloaded, and read back."""
    import gguf

    app, run = place
    page.goto(f"{app.address}/?run={run.id}")
    page.get_by_role("tab", name="Take away").click(timeout=MINUTE)
    page.locator(".away .repair", has_text="GGUF").get_by_role("button", name="Write it").click()
    line = page.locator(".away .repair", has_text="GGUF, 16 bits")
    line.get_by_text(re.compile("GGUF|asking")).last.wait_for(timeout=MINUTE)
    line.get_by_text(re.compile(r"\d+ of 20 answers equal .* 10 of 10 texts read alike")).wait_for(timeout=3 * MINUTE)
    found = re.search(r"Held-out loss: trained (\d+\.\d+), merged \d+\.\d+, exported (\d+\.\d+)", line.inner_text())
    assert float(found[1]) == pytest.approx(float(found[2]), rel=0.01)
    with page.expect_download() as fetched:
        line.get_by_role("button", name="Download").click()
    fetched.value.save_as(tmp_path / "taken.gguf")
    assert len(gguf.GGUFReader(tmp_path / "taken.gguf").tensors) == 20


def test_the_report_needs_no_network(place: tuple[App, Run], page: Any, tmp_path: Path) -> None:
    app, run = place
    page.goto(f"{app.address}/?run={run.id}")
    page.get_by_role("tab", name="Take away").click(timeout=MINUTE)
    with page.expect_download() as fetched:
        page.locator(".away .repair", has_text="Report").get_by_role("button", name="Download").click()
    fetched.value.save_as(tmp_path / "report.html")
    offline = page.context.browser.new_context(offline=True)
    report, said = offline.new_page(), []
    report.on("request", lambda request: said.append(request.url))
    report.on("console", lambda message: said.append(message.text))
    report.goto((tmp_path / "report.html").as_uri())
    assert report.locator("svg polyline").count() == 2
    assert report.locator("h1").inner_text() == "mine"
    assert [one for one in said if not one.startswith("file:")] == []
    offline.close()
