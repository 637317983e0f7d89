"""Combining on the page: choose, ask, and what a combination's own page tells; a refusal is read on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.browser import App, browser, chromium_path
from tests.ui.fakes import FakeRun

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
RUNS = ["2026-11-22-1100-one", "2026-11-22-1101-two"]
BOTH = "2026-11-22-1200-both"
TABLE = [
    {
        "run": RUNS[0],
        "rows": 12,
        "of": 12,
        "tokens": 40,
        "base": 3.1,
        "parents": {RUNS[0]: 1.25, RUNS[1]: 2.5},
        "combined": 1.5,
    }
]


def made(home: Path) -> None:
    """Two finished runs, and one that was combined of them."""
    for name in RUNS:
        run = FakeRun(name, steps=10)
        run.start(alive=False)
        run.train().finish()
    both = FakeRun(BOTH)
    file = both.folder / "config.yaml"
    held_out = [{"run": name, "data": {"train": f"/rows/{name[16:]}.json"}, "seed": 1} for name in RUNS]
    order = yaml.safe_load(file.read_text()) | {
        "combine": {"how": "ties", "runs": RUNS, "weights": [0.75, 0.25], "density": 0.4, "held_out": held_out}
    }
    file.write_text(yaml.safe_dump(order))
    both.start(alive=False)
    both.say("eval", step=0, loss=3.1)
    both.say("eval", step=1, loss=1.5, table=TABLE)
    both.finish()


def test_two_runs_are_combined_on_the_page(home: Path) -> None:
    made(home)
    with App(home) as app, browser() as opened:
        page = opened.new_page(viewport={"width": 375, "height": 812})
        page.goto(f"{app.address}/?tab=runs")
        boxes: Any = [page.locator(f'[data-key="box {name}"]') for name in RUNS]
        boxes[0].wait_for(timeout=60000)
        assert not page.locator("button[data-job=combine]").is_visible()
        for box in boxes:
            box.check()
        page.locator("button[data-job=combine]").click()
        asked = page.locator(".dialogue")
        assert not asked.get_by_label("Share of numbers to keep").is_visible()
        asked.locator("select").select_option("dare_ties")
        asked.get_by_label("Share of numbers to keep").fill("0.3")
        assert "signs are agreed on" in asked.inner_text()
        assert page.evaluate(
            "(() => { const box = document.querySelector('.dialogue').getBoundingClientRect(); "
            "return box.left >= 0 && box.right <= 375; })()"
        )
        with page.expect_request("**/run/combine") as sent:
            asked.get_by_role("button", name="Combine").click()
        ids, weights, how, density, name = json.loads(sent.value.post_data)["data"]
        assert (sorted(ids), weights, how, density, name) == (RUNS, [0.5, 0.5], "dare_ties", 0.3, "two + one")
        page.locator(".telling").wait_for(timeout=60000)  # made-up runs have no adapter: the refusal says so
        assert "adapter_config.json" in page.locator(".telling").inner_text()
        page.goto(f"{app.address}/?run={BOTH}")
        page.locator(".combined table").wait_for(timeout=60000)
        told = page.locator(".combined").inner_text()
        for part in (
            "0.75 ×",
            "one",
            "two",
            "Share of numbers kept: 0.4",
            "3.1000",
            "1.2500",
            "2.5000",
            "1.5000",
            "12 rows",
        ):
            assert part in told
        assert page.locator(".combined td.best").inner_text() == "1.2500"
        assert "one.json, two.json" in page.locator(".run-head").first.inner_text()  # the last alone stood there
        page.locator(".run-title .menu summary, .run-head .menu summary").first.click()
        listed = page.locator(".run-head .menu-list").inner_text()
        assert "Train further" not in listed
        assert "Delete" in listed
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
