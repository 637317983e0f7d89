"""The data editor in a browser: a turn changed in place, find and replace with its preview, undo, a fix, the new file
and what is trained of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser import App, chromium_path

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]


def talk(asked: str, answered: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        talk(f"What is the number {n} of this list?", f"It is the number {n}, and it ends here.") for n in range(1, 61)
    ]
    rows[6] = talk("What is the seventh?", "")
    rows[11] = talk("What is the twelfth?", "It <b>is</b> here.")
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def counted(tab: Any, said: str) -> None:
    """Wait until the bar says so."""
    tab.wait_for_function(
        "said => document.querySelector('.edit-count b')?.textContent === said", arg=said, timeout=30_000
    )


def shown(tab: Any, row: int) -> None:
    tab.wait_for_function(
        "n => document.querySelector('.editor .row-head b')?.textContent.startsWith(`Row ${n}`)",
        arg=row,
        timeout=30_000,
    )


def opened(app: App, tab: Any, file: Path) -> None:
    """Bring the file, and open the editor on it."""
    tab.goto(f"{app.address}/?tab=data")
    tab.locator("#bring").set_input_files(str(file))
    tab.wait_for_function("document.querySelector('.about .figure b')?.textContent === '60'", timeout=60_000)
    tab.locator(".edit-open").click(timeout=60_000)
    shown(tab, 1)


def test_from_an_upload_to_what_is_trained(app: App, tab: Any, file: Path) -> None:
    before = file.read_bytes()
    opened(app, tab, file)
    for row in (45, 1):
        tab.locator(".go-to").fill(str(row))
        tab.locator(".go-to").press("Enter")
        shown(tab, row)
    _in_place(tab)
    _everywhere(tab)
    tab.locator(".edit-undo").click()
    counted(tab, "1 change, not saved")
    assert "Redo: number → figure" in tab.locator(".edit-redo").inner_text()
    _refused_row(tab)
    _fix(tab)
    _rows(tab)
    tab.reload()  # a closed tab loses nothing
    tab.get_by_text("Go on editing (5 changes not saved)").click(timeout=60_000)
    counted(tab, "5 changes, not saved")
    tab.locator(".edit-save").click()
    tab.locator(".saved-note").wait_for(timeout=30_000)
    _saved(app, tab, before)


def _in_place(tab: Any) -> None:
    """Esc takes a change back, Ctrl+Enter keeps it; the tokens follow."""
    answer = tab.locator(".turn-edit textarea").nth(1)
    answer.fill("Never mind.")
    answer.press("Escape")
    assert answer.input_value() == "It is the number 1, and it ends here."
    answer.fill("It is one now.\nReally.")
    answer.press("Control+Enter")
    counted(tab, "1 change, not saved")
    tab.locator(".row-line .dot.edited").wait_for()
    assert "not saved" in tab.locator(".edit-bar").inner_text()


def _everywhere(tab: Any) -> None:
    tab.locator("#edit-find").fill("number")
    tab.locator("#edit-put").fill("figure")
    tab.locator("#edit-put").press("Enter")
    tab.locator(".edit-apply:visible").wait_for(timeout=30_000)
    assert tab.locator(".edit-found b").inner_text() == "Found: 115 in 58 rows"
    line = tab.locator(".edit-line").nth(1)
    assert (line.locator("del").first.inner_text(), line.locator("ins").first.inner_text()) == ("number", "figure")
    tab.locator(".edit-apply").click()
    counted(tab, "2 changes, not saved")
    size = tab.viewport_size
    tab.set_viewport_size({"width": 375, "height": 812})
    assert tab.evaluate("document.documentElement.scrollWidth") == 375  # the undo button names the replacement
    tab.set_viewport_size(size)
    tab.wait_for_function(
        "document.querySelector('.turn-edit textarea').value === 'What is the figure 1 of this list?'", timeout=30_000
    )


def _refused_row(tab: Any) -> None:
    tab.locator('.row-line[data-row="7"]:visible').click()
    shown(tab, 7)
    assert "not trained on" in tab.locator(".edit-verdict").inner_text()
    empty = tab.locator(".turn-edit textarea").nth(1)
    empty.fill("The seventh.")
    tab.locator("#edit-find").click()  # leaving the field keeps it as well
    counted(tab, "2 changes, not saved")
    tab.wait_for_function(
        "!document.querySelector('.edit-verdict').textContent.includes('not trained on')", timeout=30_000
    )


def _fix(tab: Any) -> None:
    tab.locator("[data-mend=html]").click()
    tab.locator(".edit-apply:visible").wait_for(timeout=30_000)
    assert "1 row would be mended" in tab.locator(".edit-found").inner_text()
    tab.locator(".edit-apply").click()
    counted(tab, "3 changes, not saved")


def _rows(tab: Any) -> None:
    """One deleted, one added."""
    tab.locator('.row-line[data-row="3"]:visible').click()
    shown(tab, 3)
    tab.locator(".edit-delete").click()
    counted(tab, "4 changes, not saved")
    shown(tab, 4)
    tab.locator(".edit-add").click()
    counted(tab, "5 changes, not saved")
    shown(tab, 61)
    assert [tab.locator(".turn-edit textarea").nth(n).input_value() for n in (0, 1)] == ["", ""]


def _saved(app: App, tab: Any, before: bytes) -> None:
    uploads = app.home / "uploads"
    assert (uploads / "talks.jsonl").read_bytes() == before
    rows = [json.loads(line) for line in (uploads / "talks.edited.jsonl").read_bytes().splitlines()]
    assert len(rows) == 60
    assert rows[0] == talk("What is the number 1 of this list?", "It is one now.\nReally.")
    assert (rows[6], rows[11]) == (
        talk("What is the seventh?", "The seventh."),
        talk("What is the twelfth?", "It is here."),
    )
    assert rows[3] == talk("", "")
    tab.wait_for_function(
        "document.querySelector('.source[aria-pressed=true] b')?.textContent === 'talks.edited.jsonl'", timeout=30_000
    )
    assert (
        "Made in the editor from talks.jsonl: 2 cells changed · 1 row added · 1 row deleted · 1 row mended."
        in tab.locator(".made-from").inner_text()
    )
    tab.locator(".row-view .segments button", has_text="Conversation").click(timeout=30_000)
    tab.wait_for_function(
        "document.querySelector('.rows .turn.assistant')?.textContent.includes('It is one now.')", timeout=30_000
    )
    order = json.loads(tab.evaluate("localStorage.getItem('studio-order')"))
    assert order["data"]["train"] == str(uploads / "talks.edited.jsonl")


def test_another_tab_is_told_and_keeps_what_was_typed(app: App, tab: Any, file: Path) -> None:
    opened(app, tab, file)
    other = tab.context.new_page()
    other.goto(f"{app.address}/?tab=data")
    other.wait_for_function("document.querySelector('.about .figure b')?.textContent === '60'", timeout=60_000)
    other.locator(".edit-open").click(timeout=60_000)
    shown(other, 1)
    for page, text in ((other, "From the other."), (tab, "From this one.")):
        page.locator(".turn-edit textarea").nth(1).fill(text)
        page.locator(".turn-edit textarea").nth(1).press("Control+Enter")
        if page is other:
            counted(other, "1 change, not saved")
    tab.locator(".edit-notice .fault").wait_for(timeout=30_000)
    assert "changed in another tab" in tab.locator(".edit-notice").inner_text()
    assert tab.locator(".turn-edit textarea").nth(1).input_value() == "From this one."
    tab.locator(".turn-edit textarea").nth(1).press("Control+Enter")
    counted(tab, "2 changes, not saved")
    tab.locator(".edit-discard").click()
    counted(tab, "Nothing changed yet")
    other.close()
