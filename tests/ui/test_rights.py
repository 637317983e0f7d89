"""Every job and every read, by every way gradio has to reach a function, for every role: who may not, does not."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.home import home
from studio.ui import calls, guard, jobs, questions, rights, who
from studio.ui.host_names import HostNames
from studio.ui.who import NOBODY, OWNER, VISITOR, WATCHER
from tests.ui.served import Page
from tests.ui.test_login import sign_in

ROLES = (NOBODY, WATCHER, VISITOR, OWNER)
OPEN = "/gradio_api/run/status"  # an address that every role but NOBODY may use
SESSION = "abcdefghijk"
DOORS = {  # what gradio offers beside the jobs
    "GET": (
        "/gradio_api/queue/data?session_hash=x",
        "/gradio_api/call/status/x",
        "/gradio_api/upload_progress?upload_id=x",
        "/gradio_api/dev/reload",
        "/gradio_api/stream/x/1/1/playlist.m3u8",
        "/gradio_api/proxy=https://huggingface.co/x",
        "/gradio_api/file=/etc/passwd",
        "/monitoring/x",
        "/gradio_api/custom_component/x/client/y/z",
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/queue/status",
        "/gradio_api/runs",
    ),
    "POST": (
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/gradio_api/upload",
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
        "/gradio_api/stream/x",
        "/gradio_api/stream/x/close",
        "/gradio_api/mcp/",
        "/gradio_api/queue/join",
        "/gradio_api/run-history/connect",
    ),
}


@pytest.fixture(scope="module")
def pages(gated: Page, public: Page) -> dict[str, tuple[Page, dict[str, str]]]:
    """Role -> the page where it is met, and the headers that carry it."""
    return {
        NOBODY: (gated, {}),
        VISITOR: (public, {}),
        WATCHER: (gated, {"Cookie": sign_in(gated, "watch", "only looking")}),
        OWNER: (gated, {"Cookie": sign_in(gated, "owner", "right horse")}),
    }


def functions(page: Page) -> dict[int, Any]:
    """Number -> function of the page's jobs, as gradio keeps them. The login button of a Space has one of its own,
    which only says who one is.
    """
    return {
        number: one
        for number, one in page.blocks.fns.items()
        if not getattr(one.fn, "__qualname__", "").startswith("LoginButton.")
    }


def ways(number: int, name: str) -> list[tuple[str, dict[str, Any]]]:
    """(address, body) of every way to call a job: by name, by number in the body of another name's address, by the
    queue.
    """
    by_name = [f"/gradio_api/{way}/{name}{end}" for way in ("run", "api", "call") for end in ("", "/")]
    by_number = [OPEN, OPEN + "/", "/gradio_api/api/status", f"/gradio_api/run/{name}", "/gradio_api/queue/join"]
    bodies: tuple[dict[str, Any], ...] = (
        {},
        {"session_hash": SESSION},
        {"batched": True},
        {"trigger_id": 1, "session_hash": SESSION},
    )
    found = [(path, more) for path in by_name for more in bodies]
    found += [(path, {"fn_index": number, **more}) for path in by_number for more in bodies]
    return [*found, (f"/gradio_api/call/v2/{name}", {})]


def test_every_job_and_read_says_who_may_call_it(page: Page) -> None:
    for number, one in functions(page).items():
        assert OWNER in rights.roles_of(one.fn), f"job {number} {one.api_name}"
    for name, read in questions.reads().items():
        assert OWNER in rights.roles_of(read), name


def test_a_job_that_does_not_say_so_cannot_be_offered() -> None:
    def careless(name: str) -> str:
        return name

    with gr.Blocks(), pytest.raises(TypeError, match="who may call it"):
        rights.register(careless)
    with pytest.raises(ValueError, match="not logged in"):
        rights.job(NOBODY)(careless)
    assert not any(rights.allows(careless, role) for role in ROLES)


def test_both_walls_say_the_same(page: Page) -> None:
    """The addresses the guard lets through, and the roles the jobs declare."""
    wall = guard.Guard(None, HostNames())
    for role, one in product((WATCHER, VISITOR), functions(page).values()):
        assert rights.allows(one.fn, role) == (one.api_name in wall._allowed(role)), (role, one.api_name)
    assert {one.api_name for one in functions(page).values() if not getattr(one.fn, rights.CHANGES)} == set(
        guard.WATCHED
    )


def test_the_page_knows_which_reads_not_everybody_may_ask() -> None:
    """So that it greys their buttons; the others stand behind a job: data_edit, share_run, make_rows."""
    wall, scope = guard.Guard(None, HostNames()), {"path": guard.ASK}
    few = {
        name.partition("/")[2]: read
        for name, read in questions.reads().items()
        if not all(rights.allows(read, role) for role in (WATCHER, VISITOR))
    }
    for role, (name, read) in product((WATCHER, VISITOR), few.items()):
        told = name in (wall.may(scope, role) or "").split()
        assert rights.allows(read, role) == told, (role, name)
    owners = [name for name, read in few.items() if not rights.allows(read, WATCHER) and not name.startswith("edit_")]
    assert sorted(owners) == ["made", "shares"]


@pytest.mark.parametrize("role", ROLES[:-1])
def test_no_way_leads_to_a_job_that_a_role_may_not_call(pages: Any, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs themselves are replaced by one that notes it was reached; the walls stand as they are."""
    page, headers = pages[role]
    reached: list[str] = []
    monkeypatch.setattr(
        rights, "_call_and_audit", lambda function, name, requester, args, request: reached.append(name) or {}
    )
    asked = 0
    for number, one in functions(page).items():
        for path, body in ways(number, one.api_name):
            reached.clear()
            answer = page.ask(
                "POST",
                path,
                json.dumps({"data": ["x"] * len(one.inputs), **body}),
                Content_Type="application/json",
                **headers,
            )
            asked += 1
            allowed = rights.allows(one.fn, role)
            assert set(reached) <= {name for name in [one.api_name] if allowed}, (role, path, body)
            if not allowed:
                assert answer.status in (400, 401, 403, 404), (role, path, answer.status, answer.body[:200])
    assert asked > 25 * 40


@pytest.mark.parametrize("role", ROLES)
def test_behind_the_address_each_job_checks_by_itself(pages: Any, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall of addresses is taken away: by name, by number and by the queue, a job that a role may not call is not
    carried out.
    """
    page, headers = pages[role]
    reached: list[str] = []
    monkeypatch.setattr(
        rights, "_call_and_audit", lambda function, name, requester, args, request: reached.append(name) or {}
    )
    monkeypatch.setattr(guard.Guard, "_beyond", lambda *_: None)
    monkeypatch.setattr(calls, "_refusal", lambda *_: None)
    allowed = {one.api_name for one in functions(page).values() if rights.allows(one.fn, role)}
    for number, one in functions(page).items():
        for path, body in (
            (OPEN, {"fn_index": number}),
            (OPEN, {"fn_index": number, "batched": True}),
            (f"/gradio_api/api/{one.api_name}", {}),
        ):
            page.ask(
                "POST",
                path,
                json.dumps({"data": ["x"] * len(one.inputs), **body}),
                Content_Type="application/json",
                **headers,
            )
    assert set(reached) == allowed
    reached.clear()
    names = {}
    for number, one in functions(page).items():
        body = {"data": ["x"] * len(one.inputs), "fn_index": number, "session_hash": SESSION + role}
        joined = page.ask(
            "POST", "/gradio_api/queue/join", json.dumps(body), Content_Type="application/json", **headers
        )
        names[joined.json["event_id"]] = one.api_name
    stream = page.ask("GET", f"/gradio_api/queue/data?session_hash={SESSION + role}", **headers).body
    told = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: ")]
    done = {names[one["event_id"]]: one["success"] for one in told if one["msg"] == "process_completed"}
    assert set(done) == set(names.values())
    assert {name for name, success in done.items() if success} == set(reached) == allowed


@pytest.mark.parametrize("role", ROLES)
def test_reads_check_by_themselves(pages: Any, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page, headers = pages[role]
    monkeypatch.setattr(guard.Guard, "_beyond", lambda *_: None)
    for name, read in questions.reads().items():
        status = page.ask("POST", f"{guard.ASK}{name}", "{}", Content_Type="application/json", **headers).status
        refused = 401 if role == NOBODY else 403
        assert (status == refused) == (not rights.allows(read, role)), (name, role, status)


def test_a_request_that_did_not_pass_the_guard_is_nobodys() -> None:
    class Bare:
        scope: dict[str, Any] = {"type": "http", "headers": [(b"studio.requester", b"owner")]}

    for request in (Bare(), gr.Request(request=Bare()), None, [gr.Request(request=Bare())], gr.Request()):
        assert who.requester_of(request).role == NOBODY
    with pytest.raises(gr.Error, match="Only the owner"):
        rights.with_role_check(jobs.start, "start")(gr.Request(request=Bare()), "data: {train: sample}")


def test_what_gradio_offers_beside_is_shut_for_those_who_look(pages: Any) -> None:
    """Another's events and streams, component servers, recordings, uploads, cancelling."""
    for role in (NOBODY, WATCHER, VISITOR):
        page, headers = pages[role]
        for method, several in DOORS.items():
            for path in several:
                answer = page.ask(
                    method, path, "{}" if method == "POST" else None, Content_Type="application/json", **headers
                )
                assert answer.status in (401, 403, 404), (role, path, answer.status)


def test_a_visitor_sees_and_changes_only_conversations_that_visitors_began(
    pages: Any, page_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.talk import chats

    monkeypatch.setattr(
        chats.Conversation,
        "ask",
        lambda self, prompt: self.turns.append({"prompt": prompt, "sides": ["base"], "answers": [], "vote": None}),
    )
    monkeypatch.setattr(chats.Conversation, "in_progress", lambda self: False)
    (owners, cookie), (visitors, _) = pages[OWNER], pages[VISITOR]
    private = owners.job("chat_ask", {"prompt": "A secret"}, **cookie).json["data"][0]["id"]
    assert "gone" in visitors.look("studio-chat", "said", {"id": private}).json
    assert visitors.look("studio-chat", "talks", {}).json["talks"] == []
    for change in ({"id": private, "turn": 0}, {"id": private}):
        assert "There is no conversation" in visitors.job("chat_ask", {"prompt": "Mine now", **change}).body
    assert "There is no conversation" in visitors.job("chat_stop", private).body
    own = visitors.job("chat_ask", {"prompt": "Hello"}).json["data"][0]["id"]
    assert visitors.look("studio-chat", "said", {"id": own}).json["turns"][0]["prompt"] == "Hello"
    assert owners.look("studio-chat", "said", {"id": own}, **cookie).json["turns"]
    assert len(chats.find(private).turns) == 1


def test_every_job_that_changes_something_leaves_a_line(
    pages: Any, page_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is called with values that it refuses: that somebody tried is written down too."""
    from studio.forecast import calibration

    monkeypatch.setattr(calibration, "calibrate", lambda *_: (_ for _ in ()).throw(OSError("not here")))
    page, cookie = pages[OWNER]
    log = home() / "audit.jsonl"
    before = len(log.read_text().splitlines())
    for one in functions(page).values():
        page.job(one.api_name, *[None] * (len(one.inputs)), **cookie)
    lines = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    changing = {one.api_name for one in functions(page).values() if getattr(one.fn, rights.CHANGES)}
    assert {line["what"] for line in lines} == changing
    assert {(line["who"], line["from"]) for line in lines} == {("owner", "127.0.0.1")}
    assert {"evaluate", "judge_answers", "find_influence", "train_without", "start_race", "start_plan"} <= changing


def test_what_changes_something_stands_in_the_audit_log(pages: Any, page_home: Path) -> None:
    page, cookie = pages[OWNER]
    log = home() / "audit.jsonl"
    page.job("label", "nowhere", {"note": "x" * 5000}, **cookie)
    page.job("status", "nowhere", **cookie)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[-1] | {"at": ""} == {
        "at": "",
        "who": "owner",
        "from": "127.0.0.1",
        "what": "label",
        "outcome": "failed",
        "with": ["nowhere", lines[-1]["with"][1]],
    }
    assert len(lines[-1]["with"][1]) < 130
    assert {"login"} <= {line["what"] for line in lines}
    assert log.stat().st_mode & 0o077 == 0
    assert "right horse" not in log.read_text()
