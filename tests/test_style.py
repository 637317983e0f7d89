"""The style is held by ruff: its rules, its format, no line over 120 columns."""

from __future__ import annotations

import subprocess
import sys

import pytest

from studio.home import PROJECT


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_has_nothing_to_say(command: list[str]) -> None:
    answer = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=PROJECT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-500:]
