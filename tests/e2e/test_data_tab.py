"""The Data tab in a browser: columns named by hand, problems jumped to, rows searched and walked through, the cut line
moved.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.browser import App, chromium_path

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
MARK = "{{name}}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        {"Frage": f"What is the number {n} of this list?", "Antwort": f"It is the number {n}, and it ends here."}
        for n in range(1, 61)
    ]
    rows[6]["Antwort"] = ""
    rows[40]["Antwort"] = f"I am {MARK}."
    rows[50]["Antwort"] = "word " * 400 + "end."
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def at_row(tab: Any, number: int) -> None:
    tab.wait_for_function(
        "n => document.querySelector('.row-head b')?.textContent.startsWith(`Row ${n} `)", arg=number, timeout=20_000
    )


def page_from(tab: Any, number: int) -> None:
    tab.wait_for_function(
        "n => document.querySelector('.row-line .num').textContent === String(n)", arg=number, timeout=20_000
    )


def test_a_file_from_its_columns_to_its_cut(app: App, tab: Any, file: Path) -> None:
    tab.goto(f"{app.address}/?tab=data")
    tab.locator("#other-source").fill(str(file))
    tab.locator("#other-source").press("Enter")
    tab.locator(".about .fault").wait_for(timeout=60_000)
    assert "none of the known layouts: Frage, Antwort" in tab.locator(".about").inner_text()
    assert tab.locator("#column-prompt").input_value() == "Frage", "as the hint says"
    tab.locator("#column-answer").select_option("")
    tab.locator(".read-so").click()
    assert "Give a question and an answer" in tab.locator(".naming").inner_text()
    tab.locator("#column-prompt").select_option("Frage")
    tab.locator("#column-answer").select_option("Antwort")
    tab.locator(".read-so").click()
    tab.locator(".problem").first.wait_for(timeout=60_000)
    assert "60" in tab.locator(".about .figure").first.inner_text()
    _problems(tab)
    _search_and_keys(tab)
    _cut(tab)
    tab.get_by_text("Recognise it again").click()
    tab.locator(".about .fault").wait_for(timeout=60_000)


def _problems(tab: Any) -> None:
    placeholder = tab.locator(".problem", has_text="placeholder")
    assert MARK in placeholder.inner_text()
    placeholder.locator(".jump button").first.click()
    at_row(tab, 41)
    assert "placeholder" in tab.locator(".row-view .note").inner_text()
    tab.locator(".problem", has_text="is empty").locator(".jump button").first.click()
    at_row(tab, 7)
    assert "could not be read" in tab.locator(".row-view").inner_text()


def _search_and_keys(tab: Any) -> None:
    tab.locator(".row-search").fill("number 12 of")
    at_row(tab, 12)
    tab.locator(".row-search").fill("")
    tab.wait_for_function("document.querySelectorAll('.row-line').length === 20", timeout=20_000)
    tab.locator(".row-line").first.click()
    at_row(tab, 1)
    for _ in range(3):
        tab.keyboard.press("ArrowDown")
    at_row(tab, 4)
    tab.keyboard.press("ArrowUp")
    at_row(tab, 3)
    turn = tab.get_by_role("button", name="Later rows")
    turn.focus()
    for first in (22, 42):  # the buttons are drawn anew with each page, and the next press is theirs again
        tab.keyboard.press("Enter")
        page_from(tab, first)
    assert turn.is_disabled()
    tab.get_by_role("button", name="Earlier rows").focus()
    for first in (22, 1):
        tab.keyboard.press("Enter")
        page_from(tab, first)
    tab.locator(".row-line").nth(2).click()
    at_row(tab, 3)
    for _ in range(19):  # over the page's end; row 7 is refused and not in the list
        tab.keyboard.press("ArrowDown")
    tab.wait_for_function("Number(document.querySelector('.row-line .num').textContent) > 20", timeout=20_000)


def _cut(tab: Any) -> None:
    if not tab.locator(".lengths .histogram").count():
        return  # no tokenizer on this computer
    note = tab.locator(".cut-note")
    before = note.inner_text()
    tab.locator(".lengths .histogram").focus()
    for _ in range(7):
        tab.keyboard.press("PageDown")
    tab.wait_for_function("was => document.querySelector('.cut-note').textContent !== was", arg=before, timeout=20_000)
    assert "rows are longer" in note.inner_text()
    assert "tokens are lost, an epoch is" in note.inner_text()


def test_uploads_beyond_the_newest_can_be_reached(app: App, tab: Any, file: Path) -> None:
    uploads = app.home / "uploads"
    uploads.mkdir(exist_ok=True)
    for number in range(14):
        path = uploads / f"number-{number}.jsonl"
        path.write_text(file.read_text())
        os.utime(path, (number, number))
    tab.goto(f"{app.address}/?tab=data")
    older = tab.locator(".older")
    older.locator("summary").click(timeout=60_000)
    older.get_by_text("number-0.jsonl").click()
    tab.locator(".older .source[aria-pressed=true]", has_text="number-0.jsonl").wait_for(timeout=20_000)
    assert older.evaluate("node => node.open"), "it stays open when the list is drawn anew"
    for path in uploads.glob("number-*"):
        path.unlink()
