"""The README's table of what is tried against the page: its counts are those of the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from studio.home import PROJECT
from studio.ui import questions
from tests.ui import test_files, test_rights
from tests.ui.served import Page

README = (PROJECT / "README.md").read_text()
ROWS = re.findall(
    r"^\| ([^|]+) \| ([^|]+) \| (`tests/[^|]+) \|$",
    README.partition("| what is tried against it |")[2].partition("\n\n")[0],
    flags=re.M,
)


def files(cell: str) -> list[str]:
    """The test files of a row; those after the first stand without their folder."""
    first, *others = re.findall(r"`([^`]+)`", cell)
    return [first, *(f"{first.rpartition('/')[0]}/{name}" for name in others)]


def test_roles_jobs_ways_and_paths(page: Page, page_home: Path) -> None:
    told, roles = " ".join(cases for _, cases, _ in ROWS), len(test_rights.ROLES)
    jobs, ways = test_rights.functions(page), test_rights.ways(0, "x")
    assert f"{len(jobs)} jobs × {roles} roles × {len(ways)} ways" in told
    assert f"{len(questions.reads())} reads × {roles} roles" in told
    assert f"{sum(map(len, test_rights.DOORS.values()))} addresses × 3 roles" in told
    paths = [path for path in test_files.data_paths(page_home) if not path.startswith("sample:")]
    assert f"{len(paths)} paths × 3 places × 3 roles" in told


def test_every_other_count_is_that_of_the_tests_collected_or_a_few_less() -> None:
    counted = {cell: int(cases) for _, cases, cell in ROWS if cases.isdigit()}
    named = sorted({name for cell in counted for name in files(cell)})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *named]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    found = {name: len(re.findall(rf"^{re.escape(name)}::", done.stdout, flags=re.M)) for name in named}
    for cell, told in counted.items():
        real = sum(found[name] for name in files(cell))
        assert told <= real <= 1.2 * told, f"{cell}: the README says {told}, and there are {real}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_the_files_are_there(row: tuple[str, str, str]) -> None:
    assert all((PROJECT / name).is_file() for name in files(row[2]))
