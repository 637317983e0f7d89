"""The Chat tab: what is asked of the model server, what is kept, what stays hidden in a blind comparison."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from studio.errors import StudioError
from studio.home import subfolder
from studio.talk import chats
from studio.ui import chat, live
from tests.ui.fakes import PROMPTS, FakeRun, FakeServer

pytestmark = pytest.mark.usefixtures("home")
RUN = "2026-11-22-1200-mine"
BOTH = [f"base:{RUN}", RUN]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "listing", live.Listing())
    monkeypatch.setattr(chats, "_open", {})


@pytest.fixture
def finished(home: Path) -> FakeRun:
    fake = FakeRun(RUN, steps=20)
    fake.start(alive=False)
    return fake.train().finish()


@pytest.fixture
def server(finished: FakeRun) -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.close()


def heard(name: str, **more: Any) -> dict[str, Any]:
    return orjson.loads(chat.said({"id": name, **more}).body)


def ended(name: str) -> dict[str, Any]:
    """The conversation once nothing is being written."""
    until = time.monotonic() + 20
    while (now := heard(name))["going"] and time.monotonic() < until:
        time.sleep(0.02)
    return now


def test_both_sides_answer_and_the_conversation_is_on_disk(server: FakeServer) -> None:
    name = chat.chat_ask(
        {"prompt": "How do I clean a window?", "sides": BOTH, "sampling": {"temperature": 0.5, "max_tokens": 64}}
    )["id"]
    turn = ended(name)["turns"][0]
    assert [answer["state"] for answer in turn["answers"]] == ["done", "done"]
    assert turn["answers"][1]["text"].startswith("**In short:**")
    assert turn["answers"][1]["usage"]["tokens_per_second"] == 21.5
    assert {ask["model"] for ask in server.asked} == set(BOTH)
    assert all(ask["temperature"] == 0.5 and ask["max_tokens"] == 64 for ask in server.asked)
    kept = json.loads((subfolder("chats") / f"{name}.json").read_text())
    assert kept["turns"][0]["answers"][1]["text"] == turn["answers"][1]["text"]
    assert orjson.loads(chat.talks({}).body)["talks"][0]["title"] == "How do I clean a window?"


def test_each_side_goes_on_with_its_own_answers_as_they_were_given(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "answer", lambda self, model, prompt: f"<think>hm</think> I am {model}")
    name = chat.chat_ask({"prompt": "one", "sides": BOTH, "system": "Be brief."})["id"]
    ended(name)
    chat.chat_ask({"id": name, "prompt": "two", "sides": BOTH, "system": "Be brief."})
    ended(name)
    asked = next(ask for ask in server.asked if ask["model"] == RUN and ask["messages"][-1]["content"] == "two")
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": f"<think>hm</think> I am {RUN}"},
        {"role": "user", "content": "two"},
    ]


def test_retry_and_edit_tell_anew_from_that_turn(server: FakeServer) -> None:
    name = chat.chat_ask({"prompt": "one", "sides": [RUN]})["id"]
    ended(name)
    chat.chat_ask({"id": name, "prompt": "two", "sides": [RUN]})
    ended(name)
    chat.chat_ask({"id": name, "prompt": "one, better", "sides": [RUN], "turn": 0})
    assert [turn["prompt"] for turn in ended(name)["turns"]] == ["one, better"]


def test_stop_keeps_what_was_said(server: FakeServer) -> None:
    server.pause = 0.05
    name = chat.chat_ask({"prompt": "go on and on", "sides": [RUN]})["id"]
    until = time.monotonic() + 20
    while not heard(name)["turns"][0]["answers"][0]["text"] and time.monotonic() < until:
        time.sleep(0.01)
    chat.chat_stop(name)
    answer = ended(name)["turns"][0]["answers"][0]
    time.sleep(0.2)
    assert answer["state"] == "stopped"
    assert 0 < len(heard(name)["turns"][0]["answers"][0]["text"]) < len(server.answer(RUN, ""))


def test_no_server_is_told_on_the_answer(finished: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, names: list[str]) -> list[str]:
        raise StudioError("The model server did not start.", "Its log says why.", "server")

    monkeypatch.setattr("studio.talk.chat.Server.load", refuse)
    name = chat.chat_ask({"prompt": "hello", "sides": [RUN]})["id"]
    answer = ended(name)["turns"][0]["answers"][0]
    assert (answer["state"], answer["error"]["where"]) == ("failed", "server")


def test_a_cut_off_conversation_reopens_as_stopped(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pause = 0.05
    name = chat.chat_ask({"prompt": "hello", "sides": [RUN]})["id"]
    until = time.monotonic() + 20
    while not heard(name)["turns"][0]["answers"][0]["text"] and time.monotonic() < until:
        time.sleep(0.01)
    chats.find(name).write()
    monkeypatch.setattr(chats, "_open", {})  # as a new process would begin
    again = heard(name)
    assert again["turns"][0]["answers"][0]["state"] == "stopped"
    assert not again["going"]


def test_blind_hides_who_speaks_until_the_vote(server: FakeServer) -> None:
    name = chat.chat_ask({"prompt": "hello", "sides": BOTH, "blind": True})["id"]
    shown = ended(name)
    assert shown["turns"][0]["sides"] == [None, None]
    assert shown["sides"] == sorted(BOTH)
    chat.chat_vote(name, 0, "left")
    chat.chat_vote(name, 0, "right")  # a vote stands
    turn = heard(name)["turns"][0]
    assert turn["vote"] == "left"
    assert set(turn["sides"]) == set(BOTH)
    assert turn["rate"]["name"] == RUN
    assert turn["rate"]["wins"] + turn["rate"]["losses"] == turn["rate"]["votes"] == 1
    assert json.loads(chat.cast_votes({"name": RUN}).body)["choice"] == "left"


def test_a_kept_answer_is_a_row_that_can_be_read(server: FakeServer) -> None:
    name = chat.chat_ask({"prompt": "hello", "sides": BOTH})["id"]
    ended(name)
    kept = chat.chat_keep({"id": name, "turn": 0, "side": 1, "text": " Better. ", "name": "../../evil"})
    assert Path(kept["path"]).parent == subfolder("uploads")
    row = json.loads(Path(kept["path"]).read_text())
    assert row["messages"] == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Better."}]


def test_voices_begin_with_the_newest_finished_run(finished: FakeRun) -> None:
    other = FakeRun("2026-11-22-1300-running", steps=20)
    other.start(alive=False)
    told = orjson.loads(chat.models({"name": RUN}).body)
    assert [one["name"] for one in told["models"]] == [RUN, "base"]
    assert told["models"][0]["base"] == f"base:{RUN}"
    assert told["server"] == {"ready": False}
    assert len(told["prompts"]) == 5


def test_what_is_asked_first_is_a_held_out_question_of_ones_own_data(home: Path, tiny_data: Path) -> None:
    made = FakeRun(RUN, steps=20, data=str(tiny_data))
    assert chat.prompts(RUN) == list(chat.PROMPTS)
    assert not set(chat.prompts(RUN, "zh")) & set(chat.PROMPTS)
    made.start(alive=False)
    assert chat.prompts(f"base:{RUN}") == list(PROMPTS)


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": ""},
        {"prompt": 3},
        {"prompt": "x", "sides": ["/etc"]},
        {"prompt": "x", "sides": ["base:../x"]},
        {"prompt": "x", "sides": [RUN], "sampling": {"x": 1}},
        {"prompt": "x", "sides": [RUN], "sampling": {"temperature": 1e999}},
        {"prompt": "x", "sides": [RUN], "sampling": {"seed": "--x"}},
        {"prompt": "x", "sides": [RUN], "id": "../../x"},
    ],
)
def test_what_cannot_be_asked_is_refused(values: dict[str, Any], finished: FakeRun) -> None:
    with pytest.raises(StudioError):
        chat.chat_ask(values)
    assert not list(subfolder("chats").glob("*.json"))


def test_delete(server: FakeServer) -> None:
    name = chat.chat_ask({"prompt": "hello", "sides": [RUN]})["id"]
    ended(name)
    chat.chat_delete(name)
    assert "gone" in heard(name)
    assert not (subfolder("chats") / f"{name}.json").exists()
