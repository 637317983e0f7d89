"""python -m tests.shots [FOLDER] [STATE…]: pictures of every state of the page, light, dark, on a phone and in Chinese,
on made-up runs.

With --readme instead of a folder: those of the README, in tests/pictures.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser import App, browser, watch

FINISHED, RESUMED, FAILED = (
    "2026-11-20-1000-first-lora",
    "2026-11-21-0910-resumed-lora",
    "2026-11-21-1430-qlora-out-of-memory",
)
COMPARED = "2026-11-21-1900-dpo-first-lora"
LOST, LIVE, WAITING = "2026-11-21-1800-lost-power", "2026-11-22-1200-persona-lora", "2026-11-22-1201-next-full"
PHONE, LAPTOP, TALL, WIDE = (375, 812), (1280, 860), (1280, 1200), (2560, 1300)
LOOKS = {"light": ("light", "en"), "dark": ("dark", "en"), "zh": ("light", "zh"), "zh-dark": ("dark", "zh")}
README = {"run": "run-live-light", "data": "data-light", "zh-dark": "tune-zh-dark"}
SKIPPED = ("chat-blind-zh", "run-gone-zh")
ENDED = """(() => { const said = Array.from(document.querySelectorAll(".said"));
  return said.length > 1 && said.every(one => one.getAttribute("aria-busy") === "false"); })()"""

# name, address, size, what is done before the picture
States = list[tuple[str, str, tuple[int, int], Callable[[Any], None] | None]]


def states() -> States:
    def press(selector: str) -> Callable[[Any], None]:
        return lambda page: page.locator(selector).first.click()

    def ask(page: Any) -> None:
        page.locator(".send").click()
        page.wait_for_function(ENDED, timeout=20000)

    def blind(page: Any) -> None:
        page.get_by_text("Blind comparison").click()
        ask(page)

    def hover(page: Any) -> None:
        page.locator(".run-page .chart-loss .chart-stage").hover(position={"x": 500, "y": 120})

    def card(name: str) -> Callable[[Any], None]:
        def scroll(page: Any) -> None:
            page.locator("#run-view-results").click()
            page.wait_for_timeout(1200)
            page.evaluate("name => document.querySelector(name).scrollIntoView()", f".{name}")

        return scroll

    def pairs(page: Any) -> None:
        page.locator(".source", has_text="pairs.json").click()
        page.wait_for_selector(".row-sides")
        page.evaluate("document.querySelector('.card.rows').scrollIntoView({block: 'center'})")

    chat, of = f"?tab=chat&model={FINISHED}", "?run={}".format
    return [
        ("data", "?tab=data", TALL, None),
        ("tune", "?tab=tune", LAPTOP, None),
        ("runs", "?tab=runs", LAPTOP, None),
        ("run-live", of(LIVE), LAPTOP, hover),
        ("run-finished", of(FINISHED), LAPTOP, None),
        ("run-compared", of(COMPARED), TALL, None),
        ("phone-compared", of(COMPARED), PHONE, None),
        ("data-pairs", "?tab=data", TALL, pairs),
        ("phone-pairs", "?tab=data", PHONE, pairs),
        ("run-resumed", of(RESUMED), LAPTOP, None),
        ("run-failed", of(FAILED), LAPTOP, None),
        ("run-lost", of(LOST), LAPTOP, None),
        ("run-waiting", of(WAITING), LAPTOP, None),
        ("run-log", of(FAILED), LAPTOP, press("#run-view-log")),
        ("run-samples", of(FINISHED), LAPTOP, press("#run-view-samples")),
        ("run-results", of(FINISHED), TALL, press("#run-view-results")),
        ("run-offer", of(RESUMED), LAPTOP, press("#run-view-results")),
        ("phone-results", of(FINISHED), PHONE, press("#run-view-results")),
        ("phone-samples", of(FINISHED), PHONE, press("#run-view-samples")),
        ("run-influence", of(FINISHED), TALL, card("influence")),
        ("phone-influence", of(FINISHED), PHONE, card("influence")),
        ("run-benchmark", of(FINISHED), LAPTOP, card("benchmark")),
        ("phone-benchmark", of(FINISHED), PHONE, card("benchmark")),
        ("run-order", of(FINISHED), LAPTOP, press("#run-view-order")),
        ("run-gone", of("2026-01-01-0000-nobody"), LAPTOP, None),
        ("compare", f"?tab=runs&compare={FINISHED},{RESUMED},{FAILED}", LAPTOP, None),
        ("chat-new", chat, LAPTOP, None),
        ("chat", chat, LAPTOP, ask),
        ("chat-blind", chat, LAPTOP, blind),
        ("phone-tune", "?tab=tune", PHONE, None),
        ("phone-runs", "?tab=runs", PHONE, None),
        ("phone-run", of(LIVE), PHONE, None),
        ("phone-chat", chat, PHONE, ask),
        ("wide-run", of(LIVE), WIDE, None),
        ("wide-tune", "?tab=tune", WIDE, None),
    ]


def make_runs() -> Any:
    """The runs of the pictures, in the STUDIO_HOME of this process; gives the one that lives."""
    from tests.ui.fakes import FakeRun

    for name, options in (
        (FINISHED, {"seed": 1, "age": 180_000}),
        (RESUMED, {"seed": 2, "age": 90_000}),
        (FAILED, {"seed": 3, "age": 70_000, "method": "qlora"}),
        (LOST, {"seed": 4, "age": 50_000}),
    ):
        run = FakeRun(name, **options)
        run.start(alive=False)
        if name == FINISHED:
            run.train().finish().evaluated().influenced().benchmarked()
        elif name == RESUMED:
            run.train(140)
            run.start(alive=False, from_step=120)
            run.train(first=121).finish()
        elif name == FAILED:
            run.train(130).fail()
        else:
            run.train(77)
    compared = FakeRun(COMPARED, seed=7, age=40_000, stage="dpo")
    compared.start(alive=False)
    compared.train().finish()
    _make_pairs()
    alive = FakeRun(LIVE, seed=6, steps=600, age=400)
    alive.start()
    alive.train(330)
    FakeRun(WAITING, method="full", age=5, hold=True)
    return alive


def _make_pairs() -> None:
    """Preference data among the uploads, and a result that an adapter can go on from."""
    uploads, result = (Path(os.environ["STUDIO_HOME"], *parts) for parts in (("uploads",), ("runs", FINISHED, "model")))
    for folder in (uploads, result):
        folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"prompt": f"How many legs have {n} spiders?", "chosen": f"{n} spiders have {8 * n} legs. Do ask if you need "
         "more.", "rejected": f"{8 * n}. Next."}
        for n in range(2, 60)
    ]  # fmt: skip
    (uploads / "pairs.json").write_text(json.dumps(rows))
    manifest = {"model": {"source": "starter"}, "template": "auto", "step": 300}
    (result / "manifest.json").write_text(json.dumps(manifest))


def keep_alive(run: Any) -> None:
    """Steps for as long as the pictures take."""
    step = 331
    while step < run.steps:
        time.sleep(0.6)
        run.now = time.time()
        run.step(step)
        step += 1


def take(page: Any, address: str, folder: Path, name: str, prepare: Callable[[Any], None] | None) -> str | None:
    """One picture; returns what is wrong with the page, in words."""
    page.goto(address)
    page.wait_for_function("window.studio && window.studio.live && window.studio.live.ready", timeout=30000)
    page.wait_for_timeout(1600)
    if prepare:
        prepare(page)
        page.wait_for_timeout(700)
    page.screenshot(path=str(folder / f"{name}.png"))
    over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return f"{name}: {over} px wider than the window" if over > 0 else None


def main(arguments: list[str]) -> int:
    readme = arguments[:1] == ["--readme"]
    folder = Path(__file__).with_name("pictures") if readme else Path(arguments[0] if arguments else "shots").resolve()
    only = list(README.values()) if readme else arguments[1:]
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="studio-shots-"))
    os.environ["STUDIO_HOME"] = str(home)
    prepared = Path(os.environ.get("STUDIO_TEST_HOME", "")) / "models"
    if prepared.is_dir():  # with the starter here the page counts tokens and memory
        (home / "models").symlink_to(prepared)
    from tests.ui.fakes import FakeServer

    threading.Thread(target=keep_alive, args=(make_runs(),), daemon=True).start()
    server, wrong = FakeServer(), []
    with App(home) as app, browser() as chromium:
        for kind, (look, language) in LOOKS.items():
            for name, query, (width, height), prepare in states():
                label = f"{name}-{kind}"
                if label not in only and (label in SKIPPED or kind == "zh-dark" or (only and name not in only)):
                    continue
                context = chromium.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=look,
                    locale="zh-CN" if language == "zh" else "en-GB",
                )
                page = context.new_page()
                seen = watch(page)
                wrong += [
                    problem
                    for problem in [take(page, f"{app.address}/{query}", folder, label, prepare), *seen]
                    if problem
                ]
                context.close()
    server.close()
    shutil.rmtree(home, ignore_errors=True)
    if readme:
        for name, label in README.items():
            (folder / f"{label}.png").rename(folder / f"{name}.png")
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")
    for problem in wrong:
        print(problem)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
