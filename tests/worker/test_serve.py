"""The model server over its HTTP, driven by OpenAI's own client, on a tiny random model."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from studio import bounded_http
from studio.errors import ModelError
from studio.talk import chat
from studio.worker import openai_answers
from studio.worker.openai_answers import parse_calls

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[chat.Server]:
    """A running server with the tiny model in it, in a home of its own."""
    before = {key: os.environ.get(key) for key in ("STUDIO_HOME", "STUDIO_CHAT_THREADS", "HF_HUB_OFFLINE")}
    os.environ |= {
        "STUDIO_HOME": str(tmp_path_factory.mktemp("serve-home")),
        "STUDIO_CHAT_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
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
    return client.chat.completions.create(
        **{"model": str(tiny), "messages": QUESTION, "temperature": 0, "max_tokens": 12, **more}
    )


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
    answers = [
        ask(client, tiny_model, temperature=1.2, top_p=0.9, seed=seed).choices[0].message.content for seed in (1, 1, 2)
    ]
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


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "nothing"}, 404),
        ({"temperature": 9}, 400),
        ({"messages": []}, 400),
        ({"n": 3}, 400),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, 400),
    ],
)
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
    until = time.monotonic() + 60
    while server.status()["busy"] and time.monotonic() < until:
        time.sleep(0.02)
    assert server.status()["busy"] == 0


def test_clients_that_leave_together_hurt_nobody(client: openai.OpenAI, server: chat.Server, tiny_model: Path) -> None:
    """Streams, whole answers and requests still waiting, all left at once while another is answered."""
    key = {"Authorization": f"Bearer {client.api_key}"}
    body = {"model": str(tiny_model), "messages": QUESTION, "max_tokens": 400, "temperature": 0}
    expected = ask(client, tiny_model, max_tokens=60).choices[0].message.content

    def leave(number: int) -> None:
        with contextlib.suppress(httpx.TimeoutException), httpx.Client(timeout=0.02 + 0.02 * (number % 8)) as one:
            url = f"{client.base_url}chat/completions"
            with one.stream("POST", url, json=body | {"stream": number % 2 == 0}, headers=key) as answer:
                answer.read()

    with ThreadPoolExecutor(24) as several:
        leaving = [several.submit(leave, number) for number in range(24)]
        stays = several.submit(ask, client, tiny_model, max_tokens=60)
        assert stays.result(60).choices[0].message.content == expected
        for one in leaving:
            one.result(60)
    until = time.monotonic() + 60
    while (busy := server.status()["busy"]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not busy, "answers that nobody waits for go on"


def test_half_a_character_is_refused_and_a_whole_one_is_not(client: openai.OpenAI, tiny_model: Path) -> None:
    key = {"Authorization": f"Bearer {client.api_key}"}
    for text, status in (("\ud83d", 400), ("\U0001f600", 200)):
        body = {"model": str(tiny_model), "messages": [{"role": "user", "content": text}], "max_tokens": 1}
        answer = httpx.post(f"{client.base_url}chat/completions", content=json.dumps(body), headers=key)
        assert answer.status_code == status
        assert status == 200 or "half a character" in answer.json()["error"]["message"]


def test_half_a_request_holds_no_connection(client: openai.OpenAI, server: chat.Server) -> None:
    told = urlsplit(str(client.base_url))
    with socket.create_connection((told.hostname, told.port), timeout=bounded_http.SLOWEST + 15) as one:
        one.sendall(b"POST /v1/models HTTP/1.1\r\nHo")
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(100) == b""


def test_two_streams_take_turns(server: chat.Server, tiny_model: Path) -> None:
    """The second is answered before the first, longer one has ended."""
    long = server.stream(str(tiny_model), QUESTION, max_tokens=400, temperature=1.0, seed=3)
    next(long)
    short = list(server.stream(str(tiny_model), QUESTION, max_tokens=5, temperature=0))
    assert short[-1].usage["tokens"] <= 5
    until = time.monotonic() + 10
    while server.status()["busy"] > 1 and time.monotonic() < until:
        time.sleep(0.005)
    assert server.status()["busy"] == 1
    long.close()


def test_load_of_nothing_is_refused_and_the_server_lives(server: chat.Server, tiny_model: Path) -> None:
    with pytest.raises(ModelError):
        server.load(["base:/nowhere/at/all"])
    assert server.models() == [str(tiny_model)]


ODD = [
    {"stop": [5]},
    {"stop": ""},
    {"stop": ["a"] * 65},
    {"temperature": "hot"},
    {"temperature": True},
    {"stream_options": "x"},
    {"stream": "yes"},
    {"seed": 1.5},
    {"seed": 2**80},
    {"logit_bias": {"x": 1}},
    {"logit_bias": {"1": 1000}},
    {"top_logprobs": -1, "logprobs": True},
    {"tool_choice": "required"},
    {"n": 0},
    {"max_tokens": 0},
    {"tool_choice": {"type": "function", "function": {"name": "x"}}},
    {"response_format": {"type": "json_object"}},
    {"best_of": 2},
    {"min_p": 0.1},
    {"tools": ["x"]},
    {"functions": []},
    {"modalities": ["audio"]},
    {"messages": "x"},
    {"messages": [5]},
    {"messages": [{"role": "nobody", "content": "x"}]},
    {"messages": [{"role": "user", "content": 5}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    {"chat_template_kwargs": {"messages": []}},
    {"metadata": 3},
    {"presence_penalty": 9},
    {"messages": [{"role": "user", "content": None, "tool_calls": [1]}]},
]


def test_what_cannot_be_meant_is_refused_and_hurts_nobody_else(client: openai.OpenAI, tiny_model: Path) -> None:
    """While another answer is being written, which goes on to its end."""
    other = iter(
        client.chat.completions.create(
            model=str(tiny_model), messages=QUESTION, max_tokens=400, stream=True, seed=1, stop=["\0never"]
        )
    )
    next(other)
    for change in ODD:
        with pytest.raises(openai.BadRequestError) as caught:
            client.post(
                "/chat/completions",
                cast_to=object,
                body={"model": str(tiny_model), "messages": QUESTION, "max_tokens": 3, **change},
            )
        assert len(caught.value.body["message"]) > 20, change
    assert list(other)[-1].choices[0].finish_reason in ("stop", "length")


def test_extreme_but_lawful_settings_hurt_nobody(client: openai.OpenAI, tiny_model: Path) -> None:
    cold = ask(client, tiny_model, temperature=1e-40).choices[0].message.content
    assert cold == ask(client, tiny_model, temperature=0).choices[0].message.content
    for change in (
        {"top_p": 0.001},
        {"presence_penalty": 2, "frequency_penalty": -2},
        {"seed": -5},
        {"stop": "x"},
        {"logit_bias": {}},
        {"user": "me"},
        {"response_format": {"type": "text"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    ):
        assert ask(client, tiny_model, **change).choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.APIStatusError, match="vocabulary"):  # an answer's failure is its own
        ask(client, tiny_model, logit_bias={"99999999": 1})


def test_bias_and_penalties_change_what_is_chosen(client: openai.OpenAI, tiny_model: Path) -> None:
    first = ask(client, tiny_model, max_tokens=1, logprobs=True, top_logprobs=0)
    assert first.choices[0].logprobs is not None
    forced = ask(client, tiny_model, max_tokens=4, logit_bias={"70": 100}, logprobs=True).choices[0].logprobs.content
    assert len({one.token for one in forced}) == 1
    both = [
        ask(client, tiny_model, max_tokens=8, logprobs=True, **more).choices[0].logprobs.content
        for more in ({}, {"frequency_penalty": 2})
    ]
    plain, spread = (len({one.token for one in found}) for found in both)
    assert spread >= plain


def test_one_model_completions_and_preflight(client: openai.OpenAI, tiny_model: Path) -> None:
    assert client.models.retrieve(str(tiny_model)).id == str(tiny_model)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")
    whole = client.completions.create(model=str(tiny_model), prompt="Once upon", max_tokens=6, temperature=0)
    assert whole.choices[0].finish_reason in ("stop", "length")
    parts = list(
        client.completions.create(model=str(tiny_model), prompt=["Once upon"], max_tokens=6, temperature=0, stream=True)
    )
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    asked = httpx.options(
        f"{client.base_url}chat/completions",
        headers={
            "Origin": "http://localhost:3000",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == "*"
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert httpx.get(f"{client.base_url}nothing").json()["error"]["message"]


CALL = '<tool_call>\n{"name": "look_up", "arguments": {"city": "Paris"}}\n</tool_call>'


PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer"}}
LOOK_UP = [{"type": "function", "function": {"name": "look_up", "parameters": {"properties": PROPERTIES}}}]


def test_calls_are_told_apart_from_text() -> None:
    text, found = parse_calls(f"Let me see.\n{CALL}\n{CALL}")
    assert text == "Let me see."
    assert [(one["function"]["name"], json.loads(one["function"]["arguments"])) for one in found] == [
        ("look_up", {"city": "Paris"})
    ] * 2
    assert parse_calls('[TOOL_CALLS] [{"name": "a", "arguments": {}}]')[1][0]["function"]["name"] == "a"
    for plain in (
        "no call",
        "<tool_call>\n{broken",
        '<tool_call>{"arguments": {}}</tool_call>',
        "[TOOL_CALLS]",
        "<tool_call>[1]</tool_call>",
        '{"name": "of nobody", "parameters": {}}',
        '{"name": "look_up"}',
        'It is {"name": "look_up", "parameters": {}}',
        "<|python_tag|>print(1)",
        "{",
    ):
        assert parse_calls(plain, LOOK_UP) == (plain, [])


@pytest.mark.parametrize(
    "said",
    [
        '[TOOL_CALLS]look_up[ARGS]{"city": "10", "days": 2}',
        '[TOOL_CALLS]look_up[CALL_ID]abc123def[ARGS]{"city": "10", "days": 2}',
        '[TOOL_CALLS][{"name": "look_up", "arguments": {"city": "10", "days": 2}, "id": "abc123def"}]',
        '{"name": "look_up", "parameters": {"city": "10", "days": 2}}',
        '<|python_tag|>{"name": "look_up", "parameters": {"city": "10", "days": 2}}',
        "<tool_call>\n<function=look_up>\n<parameter=city>\n10\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
        "</function>\n</tool_call>",
        "<tool_call>look_up\n<arg_key>city</arg_key>\n<arg_value>10</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>2</arg_value>\n</tool_call>",
    ],
)
@pytest.mark.parametrize("times", [1, 2])
def test_calls_as_each_family_writes_them(said: str, times: int) -> None:
    """As the published templates of Mistral, Llama 3, Qwen3 Coder and GLM write an assistant's turn."""
    text, calls = parse_calls(said * times if said[0] != "{" else "; ".join([said] * times), LOOK_UP)
    assert text == ""
    wanted = ("look_up", {"city": "10", "days": 2})
    assert [(one["function"]["name"], json.loads(one["function"]["arguments"])) for one in calls] == [wanted] * times


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_streamed_call_is_what_a_whole_answer_has(size: int) -> None:
    """Whatever the pieces; in the types of OpenAI's own client."""
    said = f"Let me see. {CALL}"
    shape = openai_answers.Chat("m", LOOK_UP)
    lines = [
        *shape.opening(),
        *(line for at in range(0, len(said), size) for line in shape.part(said[at : at + size], [])),
        *shape.closing("stop", None),
    ]
    parts = [ChatCompletionChunk.model_validate(line) for line in lines]
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "Let me see. "
    assert [one.function.name for part in parts for one in part.choices[0].delta.tool_calls or []] == ["look_up"]
    assert parts[-1].choices[0].finish_reason == "tool_calls"
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    whole = ChatCompletion.model_validate(openai_answers.Chat("m", LOOK_UP).whole(said, [], "stop", usage))
    assert whole.choices[0].message.tool_calls[0].function.arguments == '{"city": "Paris"}'
    assert whole.choices[0].finish_reason == "tool_calls"


def test_the_description_fits_the_server(client: openai.OpenAI) -> None:
    told = httpx.get(str(client.base_url).removesuffix("v1/") + "openapi.json").json()
    assert set(told["paths"]) == {"/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/v1/completions"}
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(told)))
    assert names <= set(told["components"]["schemas"])


def test_a_stopped_server_is_noticed(server: chat.Server, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: it neither answers nor ends. Nobody waits ten minutes for it."""
    monkeypatch.setattr(chat, "TIMEOUT", 0.5)
    monkeypatch.setattr(chat, "HEARTBEAT", 0.2)
    pid = server.status()["pid"]
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(chat.ServerGone, match="does not answer"):
            server.load([str(tiny_model)])
        with pytest.raises(chat.ServerGone):
            list(server.stream(str(tiny_model), QUESTION))
        assert time.monotonic() - began < 100  # not ten minutes
    finally:
        os.kill(pid, signal.SIGCONT)
    assert server.load([str(tiny_model)]) == [str(tiny_model)]


def test_killed_server_is_noticed_and_started_again(home: Path, tiny_model: Path) -> None:
    server = chat.server()
    server.load([str(tiny_model)])
    os.kill(server.status()["pid"], signal.SIGKILL)
    until = time.monotonic() + 60
    while server.ready() and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(chat.ServerGone):
        list(server.stream(str(tiny_model), QUESTION))
    assert server.load([str(tiny_model)]) == [str(tiny_model)]
    assert chat.end() > 0
    assert not server.ready()
    assert chat.end() == 0


def test_the_key_of_a_served_model_opens_no_other_model_and_ends_nothing() -> None:
    """`serve` gives its key to other programs; only the page's own server loads, unloads and ends itself by it."""
    from starlette.testclient import TestClient

    from studio.worker.api import Server
    from studio.worker.batch_scheduler import BatchScheduler

    ways = (("GET", "status"), ("POST", "load"), ("POST", "unload"), ("POST", "end"))
    scheduler = BatchScheduler(1)
    for own in (False, True):
        asked = TestClient(Server(scheduler, "key", own).app(), headers={"Authorization": "Bearer key"})
        answers = [asked.request(method, f"/studio/{name}", content="{") for method, name in ways]
        assert all((answer.status_code == 404) != own for answer in answers), own
    assert scheduler.inbox.empty()
