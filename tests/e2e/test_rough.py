"""The open page handled roughly: double clicks, many tabs, nonsense, huge texts, hostile texts."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from studio import run
from tests.browser import App, chromium_path
from tests.ui.fakes import FakeRun

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
POINTS = "Number(document.querySelector('.chart-loss .chart-stage')?.dataset.points || 0)"
READY = "window.studio?.live?.ready && document.querySelector('.summary .primary')?.disabled === false"
ALERTS = (
    "<img src=x onerror=window.hacked=1>",
    "<script>window.hacked=1</script>",
    "[press](javascript:window.hacked=1)",
    "<svg/onload=window.hacked=1>",
    '![](x" onerror="window.hacked=1)',
    "{{constructor.constructor('window.hacked=1')()}}",
    '"><b onmouseover=window.hacked=1>',
)


def opened(page: Any, address: str) -> Any:
    page.goto(address)
    page.wait_for_function(READY, timeout=60_000)
    return page


def known_runs() -> set[str]:
    return {one.id for one in run.runs()}


def test_a_double_click_starts_one_run(app: App, tab: Any) -> None:
    known = known_runs()
    opened(tab, f"{app.address}/?tab=tune")
    tab.locator(".summary .primary").evaluate(
        "button => { button.click(); button.click(); button.dispatchEvent(new Event('click')); }"
    )
    tab.wait_for_function("location.search.includes('run=')", timeout=60_000)
    tab.wait_for_timeout(1500)
    assert len(known_runs() - known) == 1


def test_start_is_in_the_window_of_a_small_laptop(app: App, tab: Any) -> None:
    tab.set_viewport_size({"width": 1366, "height": 650})
    opened(tab, f"{app.address}/?tab=tune")
    for _ in range(3):
        button = tab.locator(".summary .primary").bounding_box()
        assert button["y"] + button["height"] <= 650
        tab.mouse.wheel(0, 60)
        tab.wait_for_timeout(300)


def test_models_are_judged_on_the_card_that_is_looked_at(app: App, tab: Any) -> None:
    opened(tab, f"{app.address}/?tab=tune")
    tab.locator("#summary-device").select_option("NVIDIA GeForce RTX 4060")
    tab.locator(".open-chooser").click()
    tab.wait_for_function("document.querySelector('.chooser-where').textContent.includes('RTX 4060')", timeout=60_000)


def test_five_tabs_press_start_at_once(app: App, chromium: Any) -> None:
    known = known_runs()
    context = chromium.new_context(locale="en-GB")
    tabs = [opened(context.new_page(), f"{app.address}/?tab=tune") for _ in range(5)]
    for page in tabs:
        page.evaluate("setTimeout(() => document.querySelector('.summary .primary').click(), 300)")
    for page in tabs:
        page.bring_to_front()
        page.wait_for_function("location.search.includes('run=')", timeout=60_000)
        page.get_by_text("This run waits for the device.").wait_for(timeout=60_000)
    new = known_runs() - known
    assert len(new) == 5
    assert {page.evaluate("new URLSearchParams(location.search).get('run')") for page in tabs} == new
    context.close()


def test_data_changed_while_a_run_starts_is_not_the_runs(app: App, tab: Any) -> None:
    opened(tab, f"{app.address}/?tab=tune")
    tab.evaluate("(() => { document.querySelector('.summary .primary').click(); studio.order.use('sample:radio'); })()")
    tab.wait_for_function("location.search.includes('run=')", timeout=60_000)
    one = run.find(tab.evaluate("new URLSearchParams(location.search).get('run')"))
    assert one.config.data.train == "sample:three-lines"


def test_two_files_at_once_and_one_name_twice(app: App, tab: Any, tmp_path: Path) -> None:
    rows = [{"instruction": f"Count to {n}.", "output": "One."} for n in range(30)]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.json").write_text(json.dumps(rows[: 20 if folder == "a" else 30]))
    opened(tab, f"{app.address}/?tab=data")
    for folder in ("a", "b"):  # the second while the first is still read
        tab.locator("#bring").set_input_files(tmp_path / folder / "mine.json")
    tab.wait_for_function("document.querySelectorAll('.source b').length >= 5", timeout=60_000)
    tab.locator("#data").get_by_text("mine-2.json").wait_for(timeout=60_000)
    kept = {path.name: len(json.loads(path.read_text())) for path in (app.home / "uploads").glob("mine*.json")}
    assert sorted(kept.values()) == [20, 30]
    tab.locator("#bring").set_input_files({"name": "broken.json", "mimeType": "application/json", "buffer": b"[{"})
    tab.locator(".sources .fault").wait_for(timeout=60_000)
    assert "broken" not in " ".join(path.name for path in (app.home / "uploads").iterdir())


def test_an_upload_that_its_client_drops_is_no_error(app: App) -> None:
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{app.port}\r\nContent-Length: 1000000\r\n"
    part = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.json"\r\n\r\n' + "a" * 70_000
    with socket.create_connection(("127.0.0.1", app.port)) as client:
        client.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n{part}".encode())
        time.sleep(0.5)  # the page has begun to read it
    time.sleep(1.5)
    assert "ClientDisconnect" not in (app.home / "page.log").read_text()


def test_a_run_deleted_elsewhere_says_so(app: App, tab: Any) -> None:
    gone = FakeRun("2026-11-22-0900-gone", steps=30)
    gone.start(alive=False)
    gone.train().finish()
    tab.goto(f"{app.address}/?run=2026-11-22-0900-gone")
    tab.wait_for_function(f"{POINTS} === 30", timeout=60_000)
    run.delete(run.find("0900-gone"))
    tab.get_by_text("This run is not here").wait_for(timeout=60_000)
    tab.get_by_text("All runs").click()
    tab.locator(".runs-list").wait_for(timeout=60_000)


NONSENSE = (
    "{{{{",
    "data: [",
    "training: {epochs: banana}",
    "\u0000\u0007",
    "- - - -",
    "method: {name: lorra}",
    "a" * 300_000,
    "{" * 100_000,
)


def test_nonsense_in_the_yaml_is_said_and_forgotten(app: App, tab: Any) -> None:
    opened(tab, f"{app.address}/?tab=tune")
    tab.get_by_role("button", name="YAML").click()
    box = tab.locator("textarea.yaml")
    box.wait_for(timeout=60_000)
    was = box.input_value()
    for text in NONSENSE:
        box.fill(text)
        tab.locator(".yaml-fault").wait_for(timeout=60_000)
        assert tab.locator(".yaml-fault").inner_text().strip()
        tab.locator(".summary .fault").first.wait_for(timeout=60_000)  # told by the next forecast
        box.fill(was)
        tab.wait_for_function(f"{READY} && document.querySelector('.yaml-fault').hidden", timeout=60_000)


def test_a_huge_paste_is_refused_in_words(app: App, tab: Any) -> None:
    opened(tab, f"{app.address}/?tab=tune")
    tab.get_by_role("button", name="YAML").click()
    tab.locator("textarea.yaml").wait_for(timeout=60_000)
    tab.locator("textarea.yaml").evaluate(
        "box => { box.value = 'name: ' + 'x'.repeat(6e6); box.dispatchEvent(new Event('input')); }"
    )
    tab.locator(".yaml-fault").wait_for(timeout=60_000)
    assert "too long" in tab.locator(".yaml-fault").inner_text()


def test_hostile_texts_stay_texts(app: App, tab: Any, tmp_path: Path) -> None:
    rows = [{"instruction": evil, "input": evil, "output": evil} for evil in ALERTS] * 3
    (tmp_path / "evil <img src=x onerror=window.hacked=1>.json").write_text(json.dumps(rows))
    fake = FakeRun(
        "2026-11-22-0930-hostile",
        steps=40,
        data="'<img src=x onerror=window.hacked=1>'",
        model="'<script>window.hacked=1</script>'",
    )
    fake.start(alive=False)
    fake.train()
    for evil in ALERTS:
        fake.say("note", level="warning", text=evil, hint=evil)
        fake.say("sample", step=40, prompt=evil, answer=evil)
        fake.print(evil)
    fake.fail(cause=ALERTS[0], action=ALERTS[1])
    one = run.find("hostile")
    one.label(name=ALERTS[0], note=ALERTS[3])
    opened(tab, f"{app.address}/?tab=data")
    tab.locator("#bring").set_input_files(tmp_path / "evil <img src=x onerror=window.hacked=1>.json")
    tab.locator(".rows-list .row-line").nth(5).wait_for(timeout=60_000)
    for place in range(len(ALERTS)):
        tab.locator(".rows-list .row-line").nth(place).click()
        for shape in ("Text", "Conversation", "Tokens"):
            tab.get_by_role("button", name=shape, exact=True).click()
    tab.goto(f"{app.address}/?tab=runs")
    tab.locator(".runs-table").wait_for(timeout=60_000)
    tab.goto(f"{app.address}/?run={one.id}")
    tab.locator(".chart-loss").first.scroll_into_view_if_needed(timeout=60_000)  # out of sight nothing is drawn
    tab.wait_for_function(f"{POINTS} === 40", timeout=60_000)
    for view in ("samples", "log", "order", "checkpoints", "away", "curves"):
        tab.locator(f"#run-view-{view}").click()
        tab.wait_for_timeout(400)
    tab.goto(f"{app.address}/?tab=runs&compare={one.id},{one.id}")
    tab.wait_for_timeout(1000)
    # in the page itself, whose scripts run before a library that it fetches has come
    assert tab.evaluate("studio.markdown('**so:** it')[0].outerHTML") == "<p><strong>so:</strong> it</p>"
    tab.evaluate(
        (
            "text => { const box = document.createElement('div'); box.append(...studio.markdown(text)); "
            "document.body.append(box); }"
        ),
        "\n\n".join(ALERTS),
    )
    assert tab.evaluate("document.querySelectorAll('a[href^=javascript]').length") == 0
    assert tab.evaluate("window.hacked") is None


def test_the_language_is_switched_while_a_run_goes_on(app: App, tab: Any) -> None:
    fake = FakeRun("2026-11-22-1000-speaking", steps=500)
    fake.start()
    fake.train(50)
    tab.goto(f"{app.address}/?run=2026-11-22-1000-speaking")
    tab.wait_for_function(f"{POINTS} === 50", timeout=60_000)
    for last in range(51, 57):
        fake.step(last)
        tab.locator(".studio-tongue").click()
    tab.wait_for_function(f"{POINTS} === 56", timeout=60_000)
    assert "Time left" in tab.locator(".figures").inner_text()
    tab.locator(".studio-tongue").click()
    said = tab.locator(".run-page").inner_text()
    assert "剩余时间" in said
    assert "Time left" not in said
    fake.finish()
