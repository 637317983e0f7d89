"""The README's table of what is tried against the page: its counts are those of the tests."""

from __future__ import annotations

from collections import Counter
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


def test_every_other_count_is_that_of_the_tests_collected_or_a_few_less(request: pytest.FixtureRequest) -> None:
    """Counted in this session where it holds these files whole, as the whole suite's does."""
    counted = {cell: int(cases) for _, cases, cell in ROWS if cases.isdigit()}
    session, files = Counter(item.nodeid.partition("::")[0] for item in request.session.items), security_table.files
    if request.config.args == request.config.getini("testpaths") and not request.config.option.keyword:
        real_counts = {cell: sum(session[name] for name in files(cell)) for cell in counted}
    else:
        real_counts = security_table.collected(list(counted))
    for cell, real in real_counts.items():
        assert counted[cell] <= real <= 1.2 * counted[cell], f"{cell}: the README says {counted[cell]}, not {real}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_the_files_are_there(row: tuple[str, str, str]) -> None:
    assert all((PROJECT / name).is_file() for name in security_table.files(row[2]))
