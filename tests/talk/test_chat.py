"""Conversations, votes, and what the model server is asked from outside, without a model."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio import device
from studio.data import new_files
from studio.errors import DataError, DeviceError, ModelError, RunError, StudioError
from studio.evaluation import statistics
from studio.talk import chat, chats, reference, room, votes
from tests.faults.refusing import refusing
from tests.loopback import answering


def test_no_server_is_said_in_words(home: Path) -> None:
    assert not chat.server().ready()
    with pytest.raises(chat.ServerGone, match="not running"):
        chat.server().models()
    assert chat.end() == 0


@pytest.mark.parametrize("content", [b"Internal Server Error", b'{"error": {'])
def test_a_server_that_ends_while_it_refuses_is_said_in_words(
    content: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another terminal ended it: the chat ended in a JSONDecodeError."""

    class Ending(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(500)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with answering(Ending) as address:
        monkeypatch.setattr(chat, "_address", lambda: {"address": address, "key": "x", "pid": 1})
        with pytest.raises(chat.ServerGone, match="The model server has ended"):
            chat.server().models()


def test_left_over_address_of_a_dead_server_is_not_believed(home: Path) -> None:
    chat.announce("http://127.0.0.1:9", "key")
    assert not chat.server().ready()
    with pytest.raises(chat.ServerGone):
        list(chat.server().stream("base", [{"role": "user", "content": "Hi"}]))


def test_no_room_is_refused_with_figures(home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = device.Device(kind="cpu", name="a small computer", memory=10**9, free=10**8)
    monkeypatch.setattr(device, "devices", lambda: [small])
    with pytest.raises(DeviceError, match="only 0.1 GiB of a small computer"):
        room.check([], [reference.of_base(tiny_model)])


def test_running_training_is_not_starved(home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        device, "devices", lambda: [device.Device(kind="cpu", name="a computer", memory=8 * 10**9, free=4 * 10**9)]
    )
    room.check([], [reference.of_base(tiny_model)])
    monkeypatch.setattr(room, "reserved_by_training", lambda: ("my-run", 39 * 10**8))
    with pytest.raises(DeviceError, match="the running training my-run will still take 3.6 GiB"):
        room.check([], [reference.of_base(tiny_model)])


def test_names(home: Path, tiny_model: Path) -> None:
    assert reference.canonical_name("base") == "base"
    assert reference.canonical_name(str(tiny_model)) == str(tiny_model)
    assert reference.resolve(f"base:{tiny_model}").base == tiny_model.resolve()
    with pytest.raises(RunError, match="no run"):
        reference.canonical_name("nothing")
    with pytest.raises(ModelError, match="neither a model"):
        reference.resolve(str(tiny_model.parent))


def test_conversations_become_training_rows(home: Path) -> None:
    said = [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "And?"},
    ]
    file = new_files.append_rows([chats.row(said)], "my rows")
    new_files.append_rows([chats.row(said)], "my rows")
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"messages": said[:2]}] * 2
    assert file.parent == home / "uploads"
    with pytest.raises(DataError, match="no question with an answer"):
        chats.row(said[:1])


def test_votes_are_counted_for_the_right_side(home: Path) -> None:
    for choice in ("left", "left", "right", "tie"):
        votes.vote({"model": "tuned", "answer": "a"}, {"model": "base", "answer": "b"}, choice, "Hello?", "tuned")
    with votes.file("tuned").open("a") as torn:
        torn.write('{"at": 1, "left": {"mod')
    votes.vote(
        {"model": "tuned", "answer": "a\u2028b\x85c"}, {"model": "base", "answer": "b"}, "tie", "Hello?", "tuned"
    )
    found = votes.tally("tuned")
    assert (found["votes"], found["wins"], found["losses"], found["ties"], found["rate"]) == (5, 2, 1, 2, 0.6)
    assert found["low"] < 0.6 < found["high"]
    assert votes.tally("nobody") == {
        "votes": 0,
        "wins": 0,
        "losses": 0,
        "ties": 0,
        "rate": None,
        "low": 0.0,
        "high": 1.0,
    }
    sides = {votes.shuffled("tuned", "base", random.Random(seed)) for seed in range(20)}
    assert sides == {("tuned", "base"), ("base", "tuned")}


@given(st.integers(1, 200), st.floats(0, 1))
def test_interval_holds_the_share(count: int, share: float) -> None:
    wins = round(count * share)
    low, high = statistics.wilson(wins, count)
    assert 0 <= low <= wins / count + 1e-9
    assert wins / count - 1e-9 <= high <= 1


def test_interval_against_simulation() -> None:
    """Of 95 % intervals about nineteen in twenty hold the true share."""
    draw = random.Random(1)
    held = [statistics.wilson(sum(draw.random() < 0.7 for _ in range(20)), 20) for _ in range(4000)]
    assert 0.93 < sum(low <= 0.7 <= high for low, high in held) / 4000 < 0.98


class Slow:
    """A model server that says a word whenever it is let."""

    def __init__(self) -> None:
        self.word = threading.Semaphore(0)

    def load(self, names: list[str]) -> list[str]:
        return names

    def stream(self, *_: Any, **__: Any) -> Iterator[chat.Delta]:
        for _ in range(3):
            self.word.acquire(timeout=10)
            yield chat.Delta("word ")
        yield chat.Delta("", "stop", {})


def test_a_deleted_conversation_that_is_being_answered_does_not_come_back(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Slow()
    monkeypatch.setattr(chat, "server", lambda: server)
    monkeypatch.setattr(chats, "WRITE", 0.0)
    one = chats.new(["base"])
    one.ask("Hello?")
    server.word.release()
    until = time.monotonic() + 10
    while not one.turns[0]["answers"][0]["text"] and time.monotonic() < until:
        time.sleep(0.005)
    assert one.file.is_file()
    chats.delete(one.id)
    server.word.release(9)
    until = time.monotonic() + 10
    while one.in_progress() and time.monotonic() < until:
        time.sleep(0.005)
    one.write()
    assert not one.file.exists()
    assert chats.listing() == []
    with pytest.raises(StudioError, match="no conversation"):
        chats.find(one.id)
    with pytest.raises(StudioError, match="no conversation"):
        one.ask("And?")


def test_a_full_disk_does_not_end_an_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on, and is said not to be kept; written again once there is room."""
    server = Slow()
    monkeypatch.setattr(chat, "server", lambda: server)
    monkeypatch.setattr(chats, "WRITE", 0.0)
    with monkeypatch.context() as patched:
        refuse = refusing(home, patched)
        one = chats.new(["base"])
        refuse("ENOSPC")
        one.ask("Hello?")
        server.word.release(9)
        until = time.monotonic() + 10
        while one.in_progress() and time.monotonic() < until:
            time.sleep(0.005)
        assert (one.turns[0]["answers"][0]["state"], one.turns[0]["answers"][0]["text"]) == ("done", "word word word ")
        assert "disk is full" in one.write_error.message
    assert not one.file.is_file()
    one.write()
    assert one.write_error is None
    assert one.file.is_file()


def test_forty_kept_at_once_are_forty_rows(home: Path) -> None:
    said = [
        [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": f"Answer {n}."}]
        for n in range(40)
    ]
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(lambda one: new_files.append_rows([chats.row(one)], "kept"), said))
    assert {json.loads(line)["messages"][0]["content"] for line in files[0].read_text().splitlines()} == {
        one[0]["content"] for one in said
    }
    side = {"model": "tuned", "answer": "x" * 20_000}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: votes.vote(side, {"model": "base", "answer": "y"}, "left", str(n), "tuned"), range(40)))
    assert len(votes.votes("tuned")) == 40


def test_a_damaged_conversation_is_said_in_words(home: Path) -> None:
    one = chats.new(["base"])
    one.write()
    chats._open.clear()
    for text in ("", "[]", "{}", "[" * 100_000, '{"turns": [{"answers": 3}]}'):
        one.file.write_text(text)
        with pytest.raises(StudioError, match="damaged"):
            chats.find(one.id)
        chats.listing()


def test_a_failed_answer_is_not_sent_back_as_an_empty_turn(home: Path) -> None:
    talk = chats.new(["base"])
    for text, state in (("", "failed"), ("Half an", "stopped"), ("", "done")):
        talk.turns.append({"prompt": f"{state}?", "sides": ["base"], "answers": [{"text": text, "state": state}]})
    asked = {"prompt": "Now?", "sides": ["base"], "answers": []}
    talk.turns.append(asked)
    said = [(one["role"], one["content"]) for one in talk.messages(asked, "base")]
    assert said == [
        ("user", "stopped?"),
        ("assistant", "Half an"),
        ("user", "done?"),
        ("assistant", ""),
        ("user", "Now?"),
    ]
