"""The README's table of what is tried against the page: its counts are those of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.home import PROJECT
from tests.ui import security_table, test_rights
from tests.ui.served import Page

README = security_table.FILE.read_text()
ROWS = security_table.rows(README)


def test_roles_jobs_ways_and_paths(page: Page, page_home: Path) -> None:
    known = security_table.products(page_home, len(test_rights.functions(page)), len(test_rights.ways(0, "x")))
    for beginning, cases in known.items():
        assert [told for what, told, _ in ROWS if what.startswith(beginning)] == [cases]


def test_every_other_count_is_that_of_the_tests_collected_or_a_few_less() -> None:
    counted = {cell: int(cases) for _, cases, cell in ROWS if cases.isdigit()}
    for cell, real in security_table.collected(list(counted)).items():
        assert counted[cell] <= real <= 1.2 * counted[cell], f"{cell}: the README says {counted[cell]}, not {real}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_the_files_are_there(row: tuple[str, str, str]) -> None:
    assert all((PROJECT / name).is_file() for name in security_table.files(row[2]))
