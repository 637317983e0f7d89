"""The named jobs, as gradio_client calls them: import, inspect, estimate, start, status, stop; and what they refuse."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from studio.device import devices
from studio.home import PROJECT
from studio.run import runs
from studio.runs.claim import device_lock
from tests.ui.served import Page


@pytest.fixture(scope="module")
def client(page: Page) -> Client:
    return Client(page.address, verbose=False)


def test_the_jobs_have_fixed_names(client: Client) -> None:
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert {"/import", "/inspect", "/estimate", "/start", "/status", "/stop", "/chat", "/time_device"} <= set(named)


def test_the_page_gives_an_array_only_where_a_job_takes_a_list(client: Client) -> None:
    """studio.call(name, ...values) and what calls it: an array around all values would be the first of them."""
    named = client.view_api(return_format="dict")["named_endpoints"]
    call = re.compile(r'studio\.(?:call|perform|makeRun)\("(\w+)"((?:, *[\w.()]+)*), *\[')
    given = [
        (job, len(re.findall(r",", before)))
        for file in (PROJECT / "studio/ui/static").glob("*.js")
        for job, before in call.findall(file.read_text(encoding="utf-8"))
    ]
    assert ("train_without", 1) in given
    for job, place in given:
        assert "list" in named[f"/{job}"]["parameters"][place]["python_type"]["type"], job


def test_import_and_inspect(client: Client, tmp_path: Path, page_home: Path) -> None:
    file = tmp_path / "my rows.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": f"Hello {n}."}]}
        for n in range(12)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    first, again = (client.predict(handle_file(str(file)), api_name="/import") for _ in range(2))
    assert first["source"] == again["source"], "the same bytes are the same file"
    file.write_text("\n".join(map(json.dumps, rows[:6])))
    other = client.predict(handle_file(str(file)), api_name="/import")
    assert Path(other["source"]).name == "my-rows-2.jsonl", "others must not overwrite the first"
    assert Path(first["source"]).parent == (page_home / "uploads").resolve()
    found = client.predict(first["source"], api_name="/inspect")
    assert (found["format"], found["rows"]) == ("chatml", 12)


def test_start_status_stop(client: Client, order_yaml: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.queue.advance", lambda *a, **k: None)  # ordered, not begun
    forecast = client.predict(order_yaml, api_name="/estimate")
    assert forecast["total"] == sum(forecast["by_cause"].values())
    begun = client.predict(order_yaml, api_name="/start")
    assert begun["state"] == "queued"
    assert client.predict(begun["run"], api_name="/status")["method"] == "lora"
    assert client.predict(begun["run"], False, api_name="/stop")["state"] == "stopped"


def test_a_device_in_use_is_not_timed(client: Client, page_home: Path) -> None:
    lock = device_lock(devices()[0])
    assert lock.path.is_relative_to(page_home)
    assert lock.acquire()
    try:
        with pytest.raises(AppError, match="is in use"):
            client.predict(api_name="/time_device")
    finally:
        lock.release()


NAMES = (
    "../../evil.json",
    "/etc/cron.d/x",
    "a/b.json",
    "C:\\x.json",
    "con",
    "",
    "x" * 300 + ".json",
    "😀.json",
    ".hidden",
    "-rf",
    "a\nb.json",
)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_uploads_are_made_safe(page: Page, page_home: Path, name: str) -> None:
    upload = Path(os.environ["GRADIO_TEMP_DIR"]) / "t" / "rows.json"
    upload.parent.mkdir(parents=True, exist_ok=True)
    made = []
    for answer in "bc":
        upload.write_text(json.dumps([{"instruction": "a?", "output": f"It is {answer}."}] * 3))
        made.append(page.job("import", str(upload), name))
    kept = [Path(one.json["data"][0]["source"]) for one in made]
    assert kept[0] != kept[1]
    for path in kept:
        assert path.parent == (page_home / "uploads").resolve()
        assert len(path.name) < 80
        assert not path.name.startswith((".", "-"))


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "app.py", "../../etc/passwd", "", None, 7, [], {"path": "/etc/passwd"}]
)
def test_only_uploads_are_imported(page: Page, page_home: Path, path: object) -> None:
    before = sorted((page_home / "uploads").glob("*")) if (page_home / "uploads").exists() else []
    answer = page.job("import", path, "x.json")
    assert answer.status == 400
    assert "no uploaded file" in answer.json["error"]
    assert (sorted((page_home / "uploads").glob("*")) if (page_home / "uploads").exists() else []) == before


@pytest.mark.parametrize(
    "knobs",
    [
        {"training": {"batch_size": "--x"}},
        {"training": {"batch_size": "; rm -rf /"}},
        {"training": {"epochs": 1e999}},
        {"training": {"seed": 10**40}},
        {"training": {"learning_rate": "nan"}},
        {"training": {"optimizer": "a\nb"}},
        {"method": {"name": "lora", "rank": "16 "}},
        {"method": {"name": "lora", "rank": True}},
        {"method": {"name": "../x"}},
        {"name": "x" * 500},
        {"data": {"train": "nowhere.json"}},
        {"extra": 1},
        {"training": {"report_to": ["https://evil.test"]}},
    ],
)
def test_raw_calls_are_checked_like_the_form(
    page: Page, order: dict, knobs: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.queue.advance", lambda *a, **k: None)
    before = len(runs())
    answer = page.job("start", json.dumps(order | knobs))
    if answer.status == 200:  # "16 " reads as 16
        assert knobs.get("method", {}).get("rank") in ("16 ", True)
        return
    assert answer.status == 400
    assert answer.json["error"]
    assert "Traceback" not in answer.body
    assert len(runs()) == before


@pytest.mark.parametrize("order", ["", "   ", "[]", "a: [", "\0", "x" * 300_000, 7, None, {}, []])
def test_what_is_no_order_is_refused(page: Page, order: object) -> None:
    answer = page.job("start", order)
    assert answer.status == 400
    assert answer.json["error"]
    assert "Traceback" not in answer.body


@pytest.mark.parametrize("name", ["..", "/", "../runs", "a/b", "", None, 7])
def test_runs_are_named_not_pathed(page: Page, name: object) -> None:
    for job in ("status", "stop"):
        answer = page.job(job, *((name,) if job == "status" else (name, False)))
        assert answer.status == 400
        assert answer.json["error"]
