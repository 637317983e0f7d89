"""The style: ruff's rules and format; no line over 120 columns, in the page's scripts and styles neither."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

from studio.home import PROJECT

LONGEST_FUNCTION, MOST_PARAMETERS, LONG_FILE, LONG_FILES = 60, 8, 300, 8


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


def test_every_table_of_words_is_json() -> None:
    """Two changes that each add a last line merge without a conflict, and without the comma between them."""
    for file in (PROJECT / "studio").rglob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))


def test_functions_are_short_and_few_files_are_long() -> None:
    files = list((PROJECT / "studio").rglob("*.py"))
    long_files = [file.name for file in files if len(file.read_text().splitlines()) > LONG_FILE]
    assert len(long_files) <= LONG_FILES, long_files
    functions = [
        (file.name, node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    too_large = [
        f"{name}: {node.name}"
        for name, node in functions
        if node.end_lineno - node.lineno >= LONGEST_FUNCTION
        or len([arg for arg in (*node.args.args, *node.args.kwonlyargs) if arg.arg != "self"]) > MOST_PARAMETERS
    ]
    assert not too_large
