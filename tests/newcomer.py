"""python -m tests.newcomer [FOLDER]: a newcomer's path through the page, with a picture of each step.

A fresh home with one small model on this computer: own CSV file, a model of the chooser, start, chat, export. Nothing
is typed but the file's path; in English and Chinese, on a laptop and on a phone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests import tiny
from tests.browser import App, browser, watch

SIZES = {"laptop": (1400, 900), "phone": (375, 812)}
LANGUAGES = {"en": "en-GB", "zh": "zh-CN"}
MINUTE = 60_000  # milliseconds
ENDED = "[...document.querySelectorAll('.said')].filter(one => one.ariaBusy === 'false').length === 2"


def prepare(home: Path) -> Path:
    """A home with a small model in it; returns the newcomer's CSV file beside it."""
    tiny.write(home / "models" / "tiny-llama")
    rows = home.parent / "my-questions.csv"
    answers = (f'"What is {n} and {n}?","{n} and {n} is {2 * n}."' for n in range(40))
    rows.write_text("\n".join(["question,answer", *answers]), encoding="utf-8")
    return rows


def walk(page: Any, address: str, rows: Path, shoot: Callable[[str], None]) -> Iterable[str]:
    """Walk the path; yields the name of each step that was reached."""

    def step(name: str) -> str:
        page.wait_for_timeout(400)
        shoot(name)
        return name

    page.goto(address)
    page.wait_for_function("window.studio?.offer && document.querySelector('.tune-form .card')", timeout=2 * MINUTE)
    yield step("1-landed")
    page.locator(".tune-form .card-data .card-more button").click()
    page.locator("#bring").set_input_files(str(rows))
    page.wait_for_function("document.querySelector('.about .figures')", timeout=MINUTE)
    page.wait_for_function("studio.order.train().endsWith('.csv')", timeout=MINUTE)
    yield step("2-data")
    page.locator(".data .onward").click()
    page.locator(".open-chooser").click()
    own = page.locator(".choice", has_text="tiny-llama").first
    own.locator(".fit-yes").nth(1).wait_for(timeout=MINUTE)
    yield step("3-chooser")
    own.locator(".fit-yes").nth(1).click()
    page.locator(".start .primary:enabled").wait_for(timeout=MINUTE)
    page.locator(".summary").scroll_into_view_if_needed()
    yield step("4-ready")
    page.locator(".start .primary").dblclick()
    page.wait_for_function("location.search.includes('run=')", timeout=MINUTE)
    yield step("5-started")
    page.reload()
    page.locator(".call.good").get_by_role("button").wait_for(timeout=5 * MINUTE)
    yield step("6-finished")
    page.locator(".call.good").get_by_role("button").click()
    page.wait_for_function("document.querySelector('.compose textarea')?.value.length > 3", timeout=MINUTE)
    page.locator(".send").click()
    page.wait_for_function(ENDED, timeout=5 * MINUTE)
    yield step("7-answered")
    page.go_back()
    page.locator("#run-view-away").click()
    page.locator(".away .repair .button").first.click()
    page.wait_for_function("document.querySelectorAll('.away .away-said').length > 1", timeout=15 * MINUTE)
    yield step("8-exported")


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0] if arguments else "newcomer").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    with browser() as chromium:
        for language, locale in LANGUAGES.items():
            for size, (width, height) in SIZES.items():
                if arguments[1:] and f"{size}-{language}" not in arguments[1:]:
                    continue
                with tempfile.TemporaryDirectory(prefix="studio-newcomer-") as room:
                    wrong += visit(chromium, Path(room), folder, f"{size}-{language}", locale, (width, height))
    for problem in wrong:
        print(problem)
    return 1 if wrong else 0


def visit(chromium: Any, room: Path, folder: Path, label: str, locale: str, size: tuple[int, int]) -> list[str]:
    """One walk in a home of its own; returns what is wrong, in words."""
    home = room / "home"
    home.mkdir(parents=True)
    os.environ["STUDIO_HOME"] = str(home)
    rows, (width, height) = prepare(home), size
    wrong: list[str] = []
    with App(home) as app:
        context = chromium.new_context(viewport={"width": width, "height": height}, locale=locale, color_scheme="dark")
        page = context.new_page()
        seen = watch(page)

        def shoot(name: str) -> None:
            page.screenshot(path=str(folder / f"{name}-{label}.png"))
            over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            if over > 0:
                wrong.append(f"{name}-{label}: {over} px wider than the window")

        for name in walk(page, app.address, rows, shoot):
            print(label, name, flush=True)
        wrong += seen
        if len(list((home / "runs").iterdir())) != 1:
            wrong.append(f"{label}: a double click on Start began more than one run")
        context.close()
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
