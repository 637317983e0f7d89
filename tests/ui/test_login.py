"""The login: few tries for each address and for all together, what who watches may do, what is told without one."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from studio.home import folder_size
from studio.run import runs
from studio.ui import guard, login, who
from studio.ui.questions import reads
from tests.ui.fakes import FakeRun
from tests.ui.served import Page, routes


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def gate(clock: Clock) -> login.Gate:
    return login.Gate("right", "look", clock=clock)


def from_(address: str) -> None:
    who.address.set(address)


@pytest.fixture(autouse=True)
def _nowhere() -> None:
    from_("")


def test_the_two_passwords() -> None:
    one = gate(Clock())
    assert one("owner", "right")
    assert one("watch", "look")
    assert not one("owner", "look")
    assert not one("watch", "")
    assert not one("stranger", "")
    assert not login.Gate("right")("watch", "")


def test_wrong_passwords_lock_their_address_and_no_other() -> None:
    clock = Clock()
    one = gate(clock)
    from_("198.51.100.7")
    for _ in range(20):
        assert not one("owner", "wrong")
    assert not one("owner", "right"), "locked"
    from_("203.0.113.9")
    assert one("owner", "right"), "the owner comes from elsewhere"
    from_("198.51.100.7")
    clock.now += login.WINDOW - 1
    assert not one("owner", "right")
    clock.now += 2
    assert one("owner", "right")


def test_a_household_counts_as_one() -> None:
    one = gate(Clock())
    for n in range(login.TRIES):
        from_(f"2001:db8:1:2::{n:x}")
        assert not one("owner", "wrong")
    from_("2001:db8:1:2:ffff::1")
    assert not one("owner", "right")
    assert login.network("::ffff:198.51.100.7") == "198.51.100.7"
    from_("2001:db8:1:3::1")
    assert one("owner", "right")


def test_many_addresses_together_have_a_ceiling_that_spares_who_was_here_before() -> None:
    clock = Clock()
    one = gate(clock)
    from_("203.0.113.9")
    assert one("owner", "right")
    for n in range(login.CEILING):
        from_(f"10.0.{n // 250}.{n % 250}")
        assert not one("owner", f"guess {n}")
    from_("10.9.9.9")
    assert not one("owner", "right"), "closed to everybody new"
    from_("203.0.113.9")
    assert one("owner", "right")
    clock.now += login.WINDOW + 1
    from_("10.9.9.9")
    assert one("owner", "right")


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    clock = Clock()
    one = gate(clock)
    for n in range(login.REMEMBERED + 500):
        clock.now += login.WINDOW  # below the ceiling
        from_(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}")
        one("owner", "wrong")
    assert len(one._wrong) <= login.REMEMBERED
    assert len(one._all_wrong) <= 2


def sign_in(page: Page, user: str, password: str, **headers: str) -> str:
    """The cookie of a login; "" where it is refused."""
    answer = page.ask(
        "POST",
        "/login",
        urlencode({"username": user, "password": password}),
        Content_Type="application/x-www-form-urlencoded",
        **headers,
    )
    return answer.headers["set-cookie"].split(";")[0] if answer.status == 200 else ""


def test_each_address_behind_the_tunnel_has_its_own_tries(gated: Page) -> None:
    """The tunnel ends on this computer and says for whom it asks."""
    for _ in range(login.TRIES):
        assert not sign_in(gated, "owner", "wrong", X_Forwarded_For="198.51.100.77")
    assert not sign_in(gated, "owner", "right horse", X_Forwarded_For="198.51.100.77")
    assert sign_in(gated, "owner", "right horse", X_Forwarded_For="203.0.113.9")
    assert sign_in(gated, "owner", "right horse")


def test_without_login_nothing_is_told(gated: Page) -> None:
    FakeRun("2026-11-22-1200-private")
    for path in routes(gated, "GET"):
        if "heartbeat" in path or "startup-events" in path:  # hold their connection, and say nothing
            continue
        answer = gated.ask("GET", path)
        assert "2026-11-22-1200-private" not in answer.body
    for path in (
        "/config",
        "/gradio_api/info",
        "/gradio_api/file=x",
        "/gradio_api/queue/status",
        "/gradio_api/mcp/",
        "/gradio_api/openapi.json",
    ):
        assert gated.ask("GET", path).status in (401, 404, 405), path
    assert '"auth_required":true' in gated.ask("GET", "/").body, "the login page"


def test_without_login_nothing_is_asked_or_done(gated: Page, order_yaml: str) -> None:
    for name in reads():
        part, _, function = name.partition("/")
        assert gated.look(part, function, {}).status == 401, name
    for path in routes(gated, "POST"):
        if path.rstrip("/") not in ("/login",):
            assert gated.ask(
                "POST", path, json.dumps({"data": [order_yaml]}), Content_Type="application/json"
            ).status in (401, 403, 404), path
    assert gated.job("start", order_yaml).status in (401, 403)
    assert not [run for run in runs() if run.id != "2026-11-22-1200-private"]


def test_who_watches_may_read_everything(gated: Page) -> None:
    cookie = sign_in(gated, "watch", "only looking")
    others = ("download", "shares", "made")  # nothing to fetch; the owner's alone
    for name in reads():
        part, _, function = name.partition("/")
        if function in others or function.startswith("edit_"):
            continue
        answer = gated.look(part, function, {}, Cookie=cookie)
        assert answer.status == 200 or answer.json["error"]["message"], name  # some want the name of a run
        assert answer.status not in (401, 403), name
        allowed = ["status", "inspect", "estimate", "download", "doctors_report", "cast_votes"]
        assert answer.headers["x-studio-may"].split() == allowed, "so the page greys the rest"
    assert "There is no run" in gated.job("status", "nothing", Cookie=cookie).body


def test_who_watches_changes_nothing_by_any_name_or_way(gated: Page, page_home: Path, order_yaml: str) -> None:
    """Every job there is, by every way gradio has; and every other route that takes a post."""
    cookie = sign_in(gated, "watch", "only looking")
    jobs = [function.api_name for function in gated.blocks.fns.values() if function.api_name]
    assert {"start", "stop", "import", "delete", "chat_keep", "take_away"} <= set(jobs)
    before = sorted(str(path) for path in page_home.rglob("*"))
    for job in jobs:
        ways = [f"/gradio_api/{way}/{job}{end}" for way in ("run", "api", "call", "call/v2") for end in ("", "/")]
        for path in ways if job not in guard.WATCHED else [way for way in ways if "/call" in way]:
            answer = gated.ask(
                "POST",
                path,
                json.dumps({"data": [order_yaml, False, 1, "x"]}),
                Content_Type="application/json",
                Cookie=cookie,
            )
            assert answer.status == 403, path
    for path in routes(gated, "POST"):
        if path.rstrip("/") not in ("/login", "/logout") and not path.startswith(guard.ASK):
            assert gated.ask("POST", path, "{}", Content_Type="application/json", Cookie=cookie).status in (403, 404), (
                path
            )
    for method in ("PUT", "PATCH", "DELETE"):
        assert (
            gated.ask(method, "/gradio_api/run/start", "{}", Content_Type="application/json", Cookie=cookie).status
            == 403
        )
    assert sorted(str(path) for path in page_home.rglob("*")) == before


def test_who_watches_lets_nothing_be_fetched(gated: Page, page_home: Path) -> None:
    """Looking at a data set of the Hub would download it."""
    cookie, before = sign_in(gated, "watch", "only looking"), folder_size(page_home)
    order = {"data": {"train": "somebody/large-data"}, "model": "starter"}
    for part, name in (
        ("data", "inspect"),
        ("data", "rows"),
        ("data", "preview"),
        ("data", "lengths"),
        ("tune", "look"),
    ):
        answer = gated.look(part, name, {"order": order}, Cookie=cookie).body
        assert "Only the owner may fetch it" in answer, (part, name, answer)
    assert "Only the owner may fetch it" in gated.job("inspect", "somebody/large-data", "auto", Cookie=cookie).body
    assert "Only the owner may fetch it" in gated.job("estimate", json.dumps(order), Cookie=cookie).body
    assert folder_size(page_home) == before


def test_the_owner_may_work(gated: Page) -> None:
    cookie = sign_in(gated, "owner", "right horse")
    assert gated.look("tune", "offer", {}, Cookie=cookie).headers["x-studio-may"] == "*"
    assert "There is no run" in gated.job("stop", "nothing", False, Cookie=cookie).body
