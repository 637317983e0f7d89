"""axe-core on the four tabs, the list of runs and a run's page, light and dark, English and Chinese: no violation.

axe-core is not a part of the studio: `npm pack axe-core` gives it, and STUDIO_AXE names its axe.min.js.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.home import PROJECT
from tests.browser import App, browser

PLACES = {
    "data": "?tab=data",
    "tune": "?tab=tune",
    "runs": "?tab=runs",
    "run": "?run={run}",
    "chat": "?tab=chat&model={run}",
    "failed": "?run={failed}",
    "gone": "?run=nobody",
}
FAULTS = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return found.violations.flatMap((rule) => rule.nodes.map((node) =>
    `${rule.id} (${rule.impact}): ${node.target.join(" ")} ` +
      `${node.any.concat(node.all, node.none)[0]?.message ?? ""}`));
}"""


def script() -> Path | None:
    """axe.min.js, where it can be found."""
    places = [os.environ.get("STUDIO_AXE"), PROJECT / "node_modules" / "axe-core" / "axe.min.js"]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def faults(chromium: Any, address: str, look: str, locale: str) -> list[str]:
    """The violations of a page, one line for each element."""
    context = chromium.new_context(
        viewport={"width": 1280, "height": 860}, color_scheme=look, locale=locale, bypass_csp=True
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("window.studio?.live?.ready && document.querySelector('.summary .start')", timeout=60_000)
    page.wait_for_timeout(1500)
    page.add_script_tag(path=str(script()))
    found = page.evaluate(FAULTS)
    context.close()
    return found


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A browser, and the address of a page."""
    if script() is None:
        pytest.skip("axe-core is not here: `npm pack axe-core`, and STUDIO_AXE=…/axe.min.js")
    pytest.importorskip("playwright")
    home = tmp_path_factory.mktemp("axe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        from tests.shots import make_runs

        make_runs()
        with App(home) as app, browser() as chromium:
            yield chromium, app.address


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_axe_finds_nothing(opened: tuple[Any, str], place: str, look: str, locale: str) -> None:
    from tests.shots import FAILED, FINISHED

    chromium, address = opened
    assert not faults(chromium, f"{address}/{PLACES[place].format(run=FINISHED, failed=FAILED)}", look, locale)
