"""What watching costs is measured over every process of the browser."""

from __future__ import annotations

import time

import pytest

from studio.run import Run
from tests.bench import watched


def test_every_process_of_the_browser_is_counted() -> None:
    try:
        watched.found()
    except FileNotFoundError:
        pytest.skip("no Chromium here")
    browser = watched.Browser(
        "data:text/html,<script>const until = Date.now() + 1500; while (Date.now() < until);</script>"
    )
    try:
        until = time.monotonic() + 30
        while browser.seconds() < 1.5 and time.monotonic() < until:
            time.sleep(0.2)
        assert browser.seconds() >= 1.5, "a page's script works in a process of its own"
    finally:
        browser.end()
    assert not browser.profile.exists()


def test_speed_is_that_of_the_steps_that_were_made(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Run(tmp_path)
    events = [{"kind": "step", "tokens": 100 * n, "monotonic": 2.0 * n} for n in range(6)]
    told = iter([events[:2], events])
    monkeypatch.setattr(Run, "events", lambda self: next(told))
    assert watched.speed(one, 0.0) == 50.0
