"""Every failure that is the world's is a sentence: each job and each reading question, with each thing a system can
refuse.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import errors
from studio.ui import words
from studio.ui.questions import reads
from tests.faults.refusing import REFUSALS, refusing
from tests.ui.fakes import FakeRun
from tests.ui.served import Page

RUN = "2026-11-27-1000-lora-one"


@pytest.fixture(scope="module")
def run(page_home: Path) -> FakeRun:
    one = FakeRun(RUN)
    one.start(alive=False)
    one.say("end", state="stopped")
    return one


@pytest.fixture
def refuse(page_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return refusing(page_home, monkeypatch)


def jobs(talk: str, order: str, sample: str) -> list[tuple[Any, ...]]:
    """Every job of the page, with what it would do something for."""
    return [
        ("inspect", sample, "auto"),
        ("estimate", order),
        ("start", order),
        ("status", RUN),
        ("stop", RUN, False),
        ("chat", RUN, "Hello?"),
        ("time_device",),
        ("resume", RUN),
        ("finish", RUN),
        ("pause", RUN),
        ("ask", RUN, "save"),
        ("extend", RUN, 1),
        ("repair_run", RUN, {"training.batch_size": 1}),
        ("label", RUN, {"note": "A note."}),
        ("move", RUN, 1),
        ("delete", RUN),
        ("take_away", RUN, "adapter"),
        ("combine", [RUN, RUN], [0.5, 0.5], "cat", None, ""),
        ("evaluate", RUN, {}),
        ("stop_evaluation", RUN),
        ("find_influence", RUN, "Hello?", "Hi."),
        ("stop_influence", RUN),
        ("train_without", RUN, [1]),
        ("align", RUN, sample),
        ("score_answers", RUN, "Hello?", ["Hi."]),
        ("judge_answers", RUN, {"url": "http://127.0.0.1:9/v1", "model": "m"}),
        ("stop_judging", RUN),
        ("start_benchmark", RUN, {"task": "arc_easy"}),
        ("stop_benchmark", RUN),
        ("start_race", order, ["method.rank=4,8"], True),
        ("start_plan", order, 600),
        ("try_rewards", order),
        ("share_run", RUN, 7),
        ("end_shares", RUN),
        ("keep_setting", RUN, 1),
        ("delete_upload", "/x"),
        ("import", {"path": "/x"}, "x"),
        ("chat_ask", {"prompt": "Hello?", "sides": ["base"], "id": talk}),
        ("chat_ask", {"prompt": "Hello?", "sides": ["base"]}),
        ("chat_stop", talk),
        ("chat_vote", talk, 0, "left"),
        ("chat_keep", {"id": talk, "turn": 0, "side": 0, "text": "An answer.", "name": "kept"}),
        ("chat_pairs",),
        ("chat_delete", talk),
        ("chat_load", ["base"]),
        ("chat_unload",),
        ("examine", True),
        ("data_edit", {"order": order, "revision": 0, "change": {"op": "undo"}}),
        ("data_save", {"order": order, "revision": 0}),
        ("rated_pairs", sample),
        ("paste_rows", "Q: one?\nA: 1", "auto"),
        ("read_document", {"path": "/x"}, "x.md", ""),
        ("make_rows", "nowhere", {"url": "http://127.0.0.1:9/v1", "model": "m"}),
        ("stop_making", "nowhere"),
        ("take_rows", "nowhere", [0]),
    ]


def test_every_job_is_among_them(page: Page) -> None:
    known = {name for name, *_ in jobs("", "", "")}
    assert known == {one.api_name for one in page.blocks.fns.values() if one.api_name and one.api_name in known} | known
    assert {one.api_name for one in page.blocks.fns.values() if isinstance(one.api_name, str)} <= known


@pytest.mark.parametrize("name", REFUSALS)
def test_what_the_system_refuses_is_said_in_words(
    page: Page,
    run: FakeRun,
    order_yaml: str,
    tiny_data: Path,
    refuse: Callable[[str], None],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from studio import queue
    from studio.talk import chat, chats

    monkeypatch.setattr(queue, "advance", lambda: None)
    monkeypatch.setattr(
        chat,
        "start",
        lambda: (_ for _ in ()).throw(OSError(getattr(errno, name), os.strerror(getattr(errno, name)), "chat.json")),
    )
    talk = chats.new(["base", f"base:{RUN}"])
    talk.turns.append(
        {
            "prompt": "Hello?",
            "sides": ["base", f"base:{RUN}"],
            "vote": None,
            "answers": [
                {"text": "Hi.", "state": "done", "usage": None, "finish": "stop", "error": None} for _ in range(2)
            ],
        }
    )
    talk.write()
    refuse(name)
    said = []
    for job, *arguments in jobs(talk.id, order_yaml, str(tiny_data)):
        answer = page.job(job, *arguments)
        assert answer.status in (200, 400, 503, 507), (job, answer.status)
        if answer.status != 200:
            told = answer.json["error"]
            assert told, f"{job}: a bare 500"
            assert "made a mistake" not in told, f"{job}: {told}"
            said.append(told)
    assert any(REFUSALS[name] in told for told in said), said
    for place in reads():
        part, _, function = place.partition("/")
        answer = page.look(
            part,
            function,
            {
                "id": RUN,
                "ids": [RUN],
                "name": RUN,
                "kind": "adapter",
                "run": {"id": RUN, "log": {}},
                "order": json.loads(order_yaml),
                "yaml": order_yaml,
                "list": None,
                "device": True,
                "row": 1,
            },
        )
        assert answer.status in (200, 400), (place, answer.status, answer.body[:300])
        if answer.status == 400:
            assert answer.json["error"]["message"], place
            assert answer.json["error"]["hint"], place


def test_one_run_that_cannot_be_read_does_not_hide_the_others(page: Page, run: FakeRun) -> None:
    from studio.ui import live

    other = FakeRun("2026-11-27-1001-other")
    other.start(alive=False)
    live.listing.invalidate()
    other.events_file.unlink()
    other.events_file.symlink_to(other.events_file)  # an ELOOP for whoever reads it
    try:
        seen = page.look("studio-bar", "poll", {"list": None})
        assert seen.status == 200
        assert RUN in [row["id"] for row in seen.json["list"]["rows"]]
    finally:
        other.events_file.unlink()
        live.listing.invalidate()


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        [
            RUN,
            "base",
            "sample",
            "sample:three_lines",
            "../..",
            "\0",
            "x" * 300,
            "/etc/passwd",
            "starter",
            "lora",
            "zh-CN",
            "adapter",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "train",
                    "name",
                    "id",
                    "log",
                    "file",
                    "at",
                    "source",
                    "method",
                    "data",
                    "model",
                    "training",
                    "points",
                    "others",
                    "stride",
                    "generation",
                    "rank",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
KEYS = [
    "order",
    "lang",
    "id",
    "ids",
    "name",
    "kind",
    "run",
    "also",
    "list",
    "device",
    "yaml",
    "row",
    "start",
    "search",
    "last",
    "turns",
    "seen",
    "repo",
]


@pytest.mark.parametrize("place", sorted(reads()))
def test_no_question_is_answered_with_500(page: Page, run: FakeRun, place: str) -> None:
    part, _, function = place.partition("/")

    @settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.dictionaries(st.sampled_from(KEYS), ODD, max_size=5))
    def ask(question: dict[str, Any]) -> None:
        answer = page.look(part, function, question)
        assert answer.status < 500, (question, answer.body[:500])

    ask()


NAMED = [job[0] for job in jobs("", "", "") if job[1:]]


@pytest.mark.parametrize("place", range(len(NAMED)), ids=NAMED)
def test_no_job_makes_a_mistake_over_odd_values(
    page: Page, run: FakeRun, order_yaml: str, tiny_data: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value of a lawful call in turn is an odd one; whatever is not done is refused in words. Nothing is begun."""
    from studio import queue
    from studio.talk import chat, chats

    monkeypatch.setattr(queue, "advance", lambda: None)
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EAGAIN, "no", "x")))
    monkeypatch.setattr(chat, "start", lambda: (_ for _ in ()).throw(OSError(errno.EAGAIN, "no", "x")))
    talk = chats.new(["base"])
    talk.write()
    name, *lawful = [job for job in jobs(talk.id, order_yaml, str(tiny_data)) if job[1:]][place]

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.integers(0, len(lawful) - 1), ODD, st.booleans())
    def call(which: int, odd: Any, inside: bool) -> None:
        values = list(lawful)
        key = next(iter(values[which]), None) if isinstance(values[which], dict) else None
        values[which] = {**values[which], key: odd} if inside and key else odd
        answer = page.job(name, *values)
        assert answer.status in (200, 400, 422, 503), (values, answer.status)
        if answer.status in (400, 503):
            told = answer.json["error"]
            assert told, f"{values}: a bare 500"
            assert "made a mistake" not in told, f"{values}: {told}"

    call()


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"order": ' * 20_000,
        '{"id": ' + "9" * 5000 + "}",
        '{"order": {"training": {"epochs": ' + "9" * 5000 + "}}}",
        '{"yaml": "training: {epochs: ' + "9" * 5000 + '}"}',
        '{"order": {"data": {"train": "' + "x" * 300 + '.json"}}}',
        '{"yaml": "' + "[" * 50_000 + '"}',
        '"\\ud800"',
        '{"yaml": "\\ud800"}',
        '{"id": "' + "y" * 5000 + '"}',
    ],
    ids=range(10),
)
def test_texts_that_break_readers_are_refused(page: Page, body: str) -> None:
    for place in reads():
        answer = page.ask("POST", f"/studio/ask/{place}", body, Content_Type="application/json")
        assert answer.status < 500, (place, answer.body[:300])


def test_every_refusal_of_the_system_has_its_chinese() -> None:
    for number in errors.SYSTEM_ERRORS:
        told = errors.as_studio_error(OSError(number, os.strerror(number), "/home/me/file"))
        assert told is not None
        for text in (told.message, told.hint):
            assert any("\u4e00" <= sign <= "\u9fff" for sign in words.translate(text, "zh")), text


@pytest.mark.parametrize("number", errors.SYSTEM_ERRORS, ids=errno.errorcode.get)
def test_what_the_system_refuses_is_said_in_chinese_too(number: int) -> None:
    for file in ("/home/me/rows.json", None):
        told = errors.as_studio_error(OSError(number, os.strerror(number), file))
        assert told is not None
        said = words.explain(told, "zh")
        for text in (said["message"], said["hint"]):
            assert text
            assert not set("abcdefghijklmnopqrstuvwxyz ") & set(
                text.replace("/home/me/rows.json", "")
                .replace("--home", "")
                .replace("STUDIO_HOME", "")
                .replace("--port", "")
                .replace("--host", "")
                .replace("ulimit -n", "")
                .replace(" ", "")
            ), text
