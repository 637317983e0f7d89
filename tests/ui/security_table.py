"""python -m tests.ui.security_table: write the README's table of what is tried against the page anew, with its counts.

A row's count is computed where it is a product, else that of the tests collected from its files.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from studio.home import PROJECT
from studio.ui import questions

FILE = PROJECT / "README.md"
HEAD = "| what is tried against it |"
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| (`tests/[^|]+) \|$", flags=re.M)


def rows(text: str) -> list[tuple[str, str, str]]:
    """(what, cases, files) of each row of the table."""
    return ROW.findall(text.partition(HEAD)[2].partition("\n\n")[0])


def files(cell: str) -> list[str]:
    """The test files of a row; those after the first stand without their folder."""
    first, *others = re.findall(r"`([^`]+)`", cell)
    return [first, *(f"{first.rpartition('/')[0]}/{name}" for name in others)]


def products(page_home: Path, functions: int, ways: int) -> dict[str, str]:
    """Beginning of a row -> its cases, of those that are products. functions: jobs of the page; ways: to each."""
    from tests.ui import test_files, test_rights

    roles = len(test_rights.ROLES)
    paths = [path for path in test_files.data_paths(page_home) if not path.startswith("sample:")]
    return {
        "every job by every way": f"{functions} jobs × {roles} roles × {ways} ways",
        "every reading question": f"{len(questions.reads())} reads × {roles} roles",
        "gradio's other doors": f"{sum(map(len, test_rights.DOORS.values()))} addresses × 3 roles",
        "paths out of the studio's folders": f"{len(paths)} paths × 3 places × 3 roles",
    }


def collected(cells: list[str]) -> dict[str, int]:
    """Tests in the files of each cell."""
    named = sorted({name for cell in cells for name in files(cell)})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *named]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:])
    found = {name: len(re.findall(rf"^{re.escape(name)}::", done.stdout, flags=re.M)) for name in named}
    return {cell: sum(found[name] for name in files(cell)) for cell in cells}


def written(text: str, known: dict[str, str], counts: dict[str, int]) -> str:
    """The README with the cases of each row made anew."""

    def row(match: re.Match[str]) -> str:
        what, cases, cell = match.groups()
        product = next((told for beginning, told in known.items() if what.startswith(beginning)), None)
        return f"| {what} | {product or (counts[cell] if cases.isdigit() else cases)} | {cell} |"

    before, head, rest = text.partition(HEAD)
    table, end, after = rest.partition("\n\n")
    return before + head + ROW.sub(row, table) + end + after


def main() -> None:
    import app
    from tests.ui import test_rights

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        os.environ["STUDIO_HOME"] = folder
        blocks = app.build()
        stack.callback(blocks.close, verbose=False)
        page = type("Built", (), {"blocks": blocks})()
        known = products(Path(folder), len(test_rights.functions(page)), len(test_rights.ways(0, "x")))
    text = FILE.read_text()
    FILE.write_text(written(text, known, collected([cell for _, cases, cell in rows(text) if cases.isdigit()])))


if __name__ == "__main__":
    main()
