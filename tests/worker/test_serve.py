"""The model server over its HTTP, driven by OpenAI's own client, on a tiny random model."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from studio.errors import ModelError
from studio.talk import chat

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[chat.Server]:
    """A running server with the tiny model in it, in a home of its own."""
    before = {key: os.environ.get(key) for key in ("STUDIO_HOME", "STUDIO_CHAT_THREADS", "HF_HUB_OFFLINE")}
    os.environ |= {"STUDIO_HOME": str(tmp_path_factory.mktemp("serve-home")), "STUDIO_CHAT_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        chat.server().load([str(tiny_model)])
        yield chat.server()
    finally:
        chat.end()
        for key, value in before.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})


@pytest.fixture
def client(server: chat.Server) -> openai.OpenAI:
    told = json.loads(chat._file().read_text())
    return openai.OpenAI(base_url=told["address"] + "/v1", api_key=told["key"], max_retries=0)


def ask(client: openai.OpenAI, tiny: Path, **more):
    return client.chat.completions.create(**{"model": str(tiny), "messages": QUESTION, "temperature": 0, "max_tokens": 12, **more})


def test_openai_client(client: openai.OpenAI, tiny_model: Path) -> None:
    assert [model.id for model in client.models.list()] == [str(tiny_model)]
    whole = ask(client, tiny_model)
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert 0 < whole.usage.completion_tokens <= 12
    parts = list(ask(client, tiny_model, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert parts[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_same_seed_same_answer(client: openai.OpenAI, tiny_model: Path) -> None:
    answers = [ask(client, tiny_model, temperature=1.2, top_p=0.9, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_logprobs(client: openai.OpenAI, tiny_model: Path) -> None:
    found = ask(client, tiny_model, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(found) <= 12
    assert all(one.logprob == one.top_logprobs[0].logprob >= one.top_logprobs[1].logprob for one in found)


def test_stop_text(client: openai.OpenAI, tiny_model: Path) -> None:
    whole = ask(client, tiny_model).choices[0].message.content
    cut = ask(client, tiny_model, stop=[whole[3:6]]).choices[0]
    assert cut.message.content == whole[: whole.index(whole[3:6])]
    assert cut.finish_reason == "stop"


@pytest.mark.parametrize(("change", "status"), [({"model": "nothing"}, 404), ({"temperature": 9}, 400), ({"messages": []}, 400), ({"n": 3}, 400),
                                                ({"messages": [{"role": "user", "content": "word " * 2000}]}, 400)])
def test_refusals_are_sentences(client: openai.OpenAI, tiny_model: Path, change: dict, status: int) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, tiny_model, **change)
    assert caught.value.status_code == status
    assert len(caught.value.body["message"]) > 20


def test_key_is_wanted(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    assert oct(chat._file().stat().st_mode & 0o777) == "0o600"


def test_client_that_leaves_stops_its_answer(server: chat.Server, tiny_model: Path) -> None:
    stream = server.stream(str(tiny_model), QUESTION, max_tokens=450, temperature=1.5, stop=[])
    next(stream)
    stream.close()
    until = time.monotonic() + 10
    while server.status()["busy"] and time.monotonic() < until:
        time.sleep(0.02)
    assert server.status()["busy"] == 0


def test_two_streams_take_turns(server: chat.Server, tiny_model: Path) -> None:
    """The second is answered before the first, longer one has ended."""
    long = server.stream(str(tiny_model), QUESTION, max_tokens=400, temperature=1.0, seed=3)
    next(long)
    short = list(server.stream(str(tiny_model), QUESTION, max_tokens=5, temperature=0))
    assert short[-1].usage["tokens"] <= 5
    until = time.monotonic() + 1
    while server.status()["busy"] > 1 and time.monotonic() < until:
        time.sleep(0.005)
    assert server.status()["busy"] == 1
    long.close()


def test_load_of_nothing_is_refused_and_the_server_lives(server: chat.Server, tiny_model: Path) -> None:
    with pytest.raises(ModelError):
        server.load(["base:/nowhere/at/all"])
    assert server.models() == [str(tiny_model)]


def test_killed_server_is_noticed_and_started_again(home: Path, tiny_model: Path) -> None:
    server = chat.server()
    server.load([str(tiny_model)])
    os.kill(server.status()["pid"], signal.SIGKILL)
    until = time.monotonic() + 5
    while server.ready() and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(chat.ServerGone):
        list(server.stream(str(tiny_model), QUESTION))
    assert server.load([str(tiny_model)]) == [str(tiny_model)]
    assert chat.end() > 0
    assert not server.ready()
    assert chat.end() == 0
