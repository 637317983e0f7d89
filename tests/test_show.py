"""`show` for people: a finished run on one screen, without the words of programs."""

from __future__ import annotations

from typing import Any

import pytest

from studio.__main__ import main
from studio.commands import show


@pytest.mark.slow
def test_a_run_on_one_screen(trained: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "last", "--home", str(trained["home"])]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[:2] == [trained["run"], "finished"]
    for part in ("held-out loss after", "trained parameters    4,884,480", " GiB", "next: python -m studio chat"):
        assert part in shown
    assert not {"null", "None"} & set(shown.split())
    assert len(shown.splitlines()) < 40


@pytest.mark.parametrize(
    ("state", "saved", "step", "command"),
    [
        ("running", False, 3, "log -f"),
        ("finished", True, 9, "chat"),
        ("failed", False, 5, "resume"),
        ("failed", False, 0, ""),
    ],
)
def test_what_comes_next(state: str, saved: bool, step: int, command: str) -> None:
    assert show._next({"state": state, "saved": saved, "step": step}) == command
