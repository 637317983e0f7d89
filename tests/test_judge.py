"""The judge against an endpoint with scripted verdicts, and against our own server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from studio import judge
from studio.errors import ModelError, OrderError, StudioError
from studio.evaluation.endpoint import check_url
from studio.home import PROJECT
from studio.judge.endpoint import Endpoint
from studio.run import Run
from tests.browser import free_port
from tests.ui.fakes import FakeRun

KEY = "sk-never-written-anywhere"


@pytest.fixture
def run(home: Path) -> Run:
    made = FakeRun("2026-11-22-1200-mine", steps=20)
    made.start(alive=False)
    made.train().finish().evaluated(rows=8)
    return Run(made.folder)


@contextmanager
def endpoint(reply: Callable[[str, int], tuple[int, str]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(URL, requests) of an endpoint that answers reply(prompt, number of the request)."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            status, text = reply(body["messages"][0]["content"], len(seen))
            answer = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def asked(run: Run, url: str, **more: Any) -> dict[str, Any]:
    return judge.judge(run, judge.order_of({"url": url, "model": "m", "per_minute": 6000, **more}))


def test_a_judge_that_only_likes_the_first_place_says_nothing(run: Run) -> None:
    with endpoint(lambda prompt, _: (200, "[[A]]")) as (url, seen):
        found = asked(run, url)
    assert (found["wins"], found["ties"], found["losses"], found["flipped"]) == (0, 8, 0, 8)
    assert found["win_rate"] == 0.5
    prompts = [request["messages"][0]["content"] for request in seen]
    assert len(prompts) == len(set(prompts)) <= 16, "two answers that are the same are shown once"
    assert {request["path"] for request in seen} == {"/v1/chat/completions"}


def truthful(prompt: str, _: int) -> tuple[int, str]:
    first, second = prompt.split("[Answer A]\n")[1].split("\n\nReply")[0].split("\n\n[Answer B]\n")
    good = [text.startswith("City") for text in (first, second)]
    verdict = "C" if good[0] == good[1] else "A" if good[0] else "B"
    return 200, f"<think>[[A]] perhaps</think> So: [[{verdict}]]"


def test_a_fair_judge_is_heard_kept_and_not_asked_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(judge.KEY, KEY)
    table = judge.table_of(run)
    better = sum(row["tuned"].startswith("City") > row["base"].startswith("City") for row in table)
    worse = sum(row["tuned"].startswith("City") < row["base"].startswith("City") for row in table)
    with endpoint(truthful) as (url, seen):
        found = asked(run, url)
        assert (found["wins"], found["losses"]) == (better, worse)
        assert found["low"] < found["win_rate"] < found["high"]
        assert {request["key"] for request in seen} == {f"Bearer {KEY}"}
        count = len(seen)
        asked(run, url)
        assert len(seen) == count, "the second time out of the cache"
    assert judge.job(run).results()["rows"][0]["verdict"] in ("tuned", "base", "tie")
    assert not [file for file in run.folder.rglob("*") if file.is_file() and KEY in file.read_text(errors="replace")]


def test_busy_endpoints_are_asked_again_and_refusals_end_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "_sleep", lambda *_: None)
    tries: Counter[str] = Counter()

    def busy(prompt: str, _: int) -> tuple[int, str]:
        tries[prompt] += 1
        return (200 if tries[prompt] == 3 else 429), "[[C]]"

    with endpoint(busy) as (url, _):
        assert asked(run, url)["ties"] == 8
    (run.folder / "judge" / "cache.jsonl").unlink()
    for status, way in ((401, "STUDIO_JUDGE_KEY=KEY in its environment"), (302, "Check its address")):
        with (
            endpoint(lambda prompt, n, status=status: (status, "no")) as (url, seen),
            pytest.raises(ModelError, match=f"no verdict.*status {status}") as refusal,
        ):
            asked(run, url)
        assert way in refusal.value.hint
        assert len(seen) <= 2 * judge.AT_ONCE, "not asked on and on, and redirects are not followed"
    assert judge.job(run).status()["state"] == "failed"


def test_odd_replies_are_ties_and_texts_are_put_in_as_they_are(run: Run) -> None:
    with endpoint(lambda prompt, _: (200, "A is fine, but B is too.")) as (url, _):
        found = asked(run, url)
    assert (found["ties"], found["unreadable"]) == (8, 8)
    assert "No verdict could be read" in judge.describe(found), "not: it wins half of them"
    row = {"prompt": "{answer_b} {0}", "reference": "", "base": "{question}", "tuned": "two"}
    filled = judge._filled("{question}|{answer_a}|{answer_b}", row, "base", "tuned")
    assert filled == "{answer_b} {0}|{question}|two"


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://127.0.0.1/v1"},
        {"url": "http://user:key@127.0.0.1/v1"},
        {"url": "http://127.0.0.1/v1?key=x"},
        {"url": "http://169.254.169.254/latest"},
        {"url": "http://[::ffff:169.254.169.254]/latest"},
        {"url": "http://0.0.0.0:80/v1"},
        {"url": "http://127.0.0.1:99999/v1"},
        {"url": "http://127.0.0.1/v1", "prompt": "Which is better?"},
        {"url": "http://127.0.0.1/v1", "rows": 0},
        {"url": "http://127.0.0.1/v1", "key": KEY},
    ],
)
def test_what_may_not_be_asked_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(OrderError):
        judge.order_of({"model": "m", **settings})


def test_what_is_missing_or_away_is_told_in_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "_sleep", lambda *_: None)
    with pytest.raises(OrderError, match=r"judge.url is empty. Fill it in."):
        judge.order_of({"url": "", "model": "m"})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    with pytest.raises(ModelError, match=f"nothing can be reached at {url}"):
        asked(run, url)


def test_a_key_does_not_travel_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(judge.KEY, KEY)
    with pytest.raises(OrderError, match="unencrypted"):
        check_url("http://192.0.2.1/v1")
    check_url("http://127.0.0.1:8000/v1")
    check_url("https://192.0.2.1/v1")


def test_a_run_without_answers_is_told_so(home: Path) -> None:
    made = FakeRun("2026-11-22-1300-other", steps=20)
    with pytest.raises(StudioError, match="no answers to judge"):
        judge.table_of(Run(made.folder))


def test_empty_answers_are_not_sent(run: Run) -> None:
    table = [{**row, "base": "", "tuned": " "} for row in judge.table_of(run)]
    order = judge.JudgeOrder(url="http://127.0.0.1:9/v1", model="m")
    with pytest.raises(StudioError, match="answered every question with nothing"):
        judge.judge(run, order, table=table)


def test_our_own_server_judges(run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`serve` with the tiny model, whose random words are no verdicts: every pair is a tie, and all that was asked is
    answered.
    """
    port, key = free_port(), "our-own-key"
    monkeypatch.setenv("STUDIO_API_KEY", key)
    monkeypatch.setenv("STUDIO_JUDGE_KEY", key)
    command = [sys.executable, "-m", "studio", "serve", str(tiny_model), "--port", str(port)]
    with open(tmp_path / "serve.log", "wb") as log:
        server = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        url, until = f"http://127.0.0.1:{port}/v1", time.monotonic() + 240
        while True:
            try:
                models = httpx2.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"}, timeout=5).json()[
                    "data"
                ]
                break
            except httpx2.HTTPError:
                assert server.poll() is None, (tmp_path / "serve.log").read_text()
                assert time.monotonic() < until
                time.sleep(0.2)
        found = asked(run, url, model=models[0]["id"], rows=2)
    finally:
        server.terminate()
        server.wait(30)
    assert (found["ties"], found["unreadable"], found["win_rate"], found["why"]) == (2, 2, 0.5, "")
    replies = (run.folder / "judge" / "cache.jsonl").read_text().splitlines()
    assert len(replies) == 4, "both orders of both pairs"
    assert all(any(json.loads(line).values()) for line in replies), "answered with words"


def test_a_stop_is_heard_while_a_slow_judge_is_waited_for(run: Run) -> None:
    released = threading.Event()

    def slow(_: str, number: int) -> tuple[int, str]:
        if number > 8:  # the first four questions are answered, each twice
            released.wait(120)
        return 200, "[[A]]"

    with endpoint(slow) as (url, seen):
        answers: list[dict[str, Any]] = []
        judging = threading.Thread(target=lambda: answers.append(asked(run, url)))
        judging.start()
        while len(seen) < 9 and judging.is_alive():
            time.sleep(0.01)
        began = time.monotonic()
        judge.job(run).request_stop()
        judging.join(60)
        waited = time.monotonic() - began
        released.set()
    assert answers[0]["state"] == "stopped"
    assert answers[0]["why"] == "stopped"
    assert 1 <= len(answers[0]["rows"]) <= 4
    assert waited < 30  # not the two minutes that the judge takes


def test_what_the_client_does_not_expect_is_raised_where_it_is_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the wait for an answer would never end: httpx's InvalidURL, say, is no HTTPError."""

    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("no URL to go on with")

    monkeypatch.setattr("httpx2.Client.post", broken)
    with pytest.raises(ValueError, match="no URL to go on with"):
        asked(run, "http://127.0.0.1:9")
