"""What the tests of the open page share: a headless Chromium, a page on a taken device, a tab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from studio.runs import claim
from tests.browser import App, browser, watch


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A served page on a computer whose device is taken: what is started waits."""
    home = tmp_path_factory.mktemp("page") / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        locks = claim.device_locks()
        assert all(lock.acquire() for lock in locks)
        with App(home) as served:
            yield served
        for lock in locks:
            lock.release()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en-GB")
    page = context.new_page()
    page.seen = watch(page)
    yield page
    assert page.seen == []
    context.close()
