"""The style: ruff's rules and format; no line over 120 columns, in the page's scripts and styles neither."""

from __future__ import annotations

import subprocess
import sys

import pytest

from studio.home import PROJECT


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_has_nothing_to_say(command: list[str]) -> None:
    answer = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=PROJECT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-500:]


def test_no_line_of_the_page_is_over_120_columns() -> None:
    static = PROJECT / "studio/ui/static"
    files = [file for kind in ("js", "css", "html") for file in static.glob(f"*.{kind}")]
    too_long = {
        f"{file.name}:{number}"
        for file in files
        for number, line in enumerate(file.read_text().split("\n"), 1)
        if len(line) > 120
    }
    assert files
    assert not too_long
