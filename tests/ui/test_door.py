"""Logging in and out: sessions that end, odd cookies, tokens, frames, proxies, and strangers who must not lock out
the owner.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import gradio
import pytest

from studio import bounded_http, request_body
from studio.home import home, restrict_permissions
from studio.ui import concurrency, login, sessions, shared_host, space, who
from studio.ui.serving import Reach
from tests.ui.served import Page, served
from tests.ui.test_login import Clock, sign_in

PNG = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}


@pytest.fixture(scope="module")
def owner(gated: Page) -> str:
    return sign_in(gated, "owner", "right horse")


@pytest.fixture(autouse=True)
def _plain() -> Iterator[None]:
    yield
    for variable in (who.address, who.peer, who.device):
        variable.set("")


def role(page: Page, cookie: str) -> str:
    said = page.look("tune", "offer", {}, Cookie=cookie).headers.get("x-studio-may")
    return {None: "nobody", "*": "owner"}.get(said, "watch")


@pytest.mark.parametrize(
    "odd",
    [
        "bad[name]=1",
        "a=b=c",
        "x",
        '{"json": 1}=2',
        "名=字",
        "=",
        "a b c=1",
        'k="unclosed',
        "$Version=1",
        "session=\x01\x02",
        ";;;,,,",
    ],
)
def test_an_odd_cookie_of_another_program_locks_nobody_out(gated: Page, owner: str, odd: str) -> None:
    for cookies in (f"{odd}; {owner}", f"{owner}; {odd}", f"a=1; {odd}; {owner}; b=2"):
        connection = cookies.encode("utf-8").decode("latin-1")
        if any(ord(letter) < 32 for letter in odd):
            connection = connection.replace("\x01", "").replace("\x02", "")  # no server takes those
        assert role(gated, connection) == "owner", cookies


def test_a_session_ends_when_it_is_silent_and_at_last_in_any_case() -> None:
    clock = Clock()
    kept = sessions.Sessions(clock)
    token = kept.begin("owner")
    for _ in range(int(sessions.LONGEST / sessions.IDLE) * 2 - 1):
        clock.now += sessions.IDLE / 2
        assert kept.role(token) == "owner"
    clock.now += sessions.IDLE / 2 + 1
    assert kept.role(token) == "", "fourteen days are enough"
    silent = kept.begin("watch")
    clock.now += sessions.IDLE + 1
    assert kept.role(silent) == ""
    assert kept.role("") == kept.role("guess") == ""
    assert token not in repr(vars(kept)), "only a hash is kept"
    first = kept.begin("owner")
    for _ in range(sessions.MOST):
        kept.begin("watch")
    assert kept.role(first) == ""


def test_logging_out_ends_the_session_here(gated: Page) -> None:
    mine, other = sign_in(gated, "owner", "right horse"), sign_in(gated, "owner", "right horse")
    assert gated.ask("POST", "/logout", "", Cookie=mine, Origin="https://evil.test").status == 403
    assert gated.ask("POST", "/logout", "", Cookie=mine, **PNG).status == 403
    for method in ("GET", "HEAD"):
        assert gated.ask(method, "/logout", Cookie=mine).status in (404, 405)
    assert role(gated, mine) == "owner", "no other site, and no picture's address, logs out"
    assert gated.ask("POST", "/logout", "", Cookie=mine).status == 200
    assert role(gated, mine) == "nobody", "a copy of the cookie opens nothing"
    assert role(gated, other) == "owner"


def test_a_login_of_the_hub_ends_on_the_server_too() -> None:
    here = space.Space("anna/studio", "", "anna", "none", False, False, True)
    visits = space.Visits(here)
    anna = {
        "session": {
            "oauth_info": {
                "access_token": "t",
                "expires_at": time.time() + 60,
                "userinfo": {"preferred_username": "anna"},
            }
        }
    }
    again = {"session": {"oauth_info": {**anna["session"]["oauth_info"], "access_token": "u"}}}
    assert visits.role(anna) == "owner"
    visits.end(anna)
    assert visits.role(anna) == "watch"
    assert visits.role(again) == "owner", "she logged in anew"
    visits.end({"session": {}})
    assert visits.role(again) == "owner"


def test_cookies_are_for_this_site_and_no_script(gated: Page) -> None:
    answer = gated.ask(
        "POST", "/login", "username=owner&password=right+horse", Content_Type="application/x-www-form-urlencoded"
    )
    cookie = SimpleCookie(answer.headers["set-cookie"])
    morsel = next(one for name, one in cookie.items() if "session" in name)
    assert morsel["httponly"]
    assert morsel["samesite"] == "lax"
    assert 0 < int(morsel["max-age"]) <= sessions.LONGEST
    secure = gated.ask(
        "POST",
        "/login",
        "username=owner&password=right+horse",
        Content_Type="application/x-www-form-urlencoded",
        X_Forwarded_Proto="https",
    )
    assert "secure" in secure.headers["set-cookie"].lower()


def test_no_other_site_may_frame_the_page(gated: Page, page: Page, owner: str) -> None:
    for one in (page, gated):
        for path in ("/", "/config", "/nothing"):
            assert "frame-ancestors 'self'" in one.ask("GET", path, Cookie=owner).headers["content-security-policy"]


def test_what_another_sites_page_fetches_is_refused(gated: Page, owner: str) -> None:
    for path in ("/config", "/gradio_api/heartbeat/x", "/gradio_api/info"):
        assert gated.ask("GET", path, Cookie=owner, **PNG).status == 403, path
    assert gated.ask("GET", "/", Cookie=owner, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200, (
        "a link is followed"
    )


# -- tokens


def test_the_printed_address_opens_the_page_and_nothing_else_does(
    page_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(Reach(token=True)) as page:
        told = re.search(r"is ready: (\S+)\?token=(\S+)", capsys.readouterr().out)
        assert len(told[2]) >= 16
        for path in ("/config", "/gradio_api/info", "/theme.css"):
            assert page.ask("GET", path).status == 401
        assert page.look("tune", "offer", {}).status == 401
        for wrong in ("", "x", told[2][:-1], told[2] + "x", "%00", "名"):
            answer = page.ask(
                "GET", f"/?token={wrong}".encode().decode("latin-1") if wrong.isascii() else "/?token=%E5%90%8D"
            )
            assert "set-cookie" not in answer.headers
            assert "Fine-Tuning Studio" in answer.body, "the login page, which takes the token too"
        opened = page.ask("GET", f"/?tab=runs&token={told[2]}&run=a%20b")
        assert opened.status == 303
        assert opened.headers["location"] == "./?tab=runs&run=a+b", "the token leaves the address bar"
        assert role(page, opened.headers["set-cookie"].split(";")[0]) == "owner"
        assert role(page, sign_in(page, "owner", told[2])) == "owner", "gradio_client gives it as the password"


def test_gradio_client_logs_in(gated: Page) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    studio = Client(gated.address, auth=("owner", "right horse"), verbose=False)
    with pytest.raises(AppError, match="There is no run"):
        studio.predict("nothing", api_name="/status")
    with pytest.raises(ValueError, match="Could not login"):
        Client(gated.address, auth=("owner", "wrong"), verbose=False)


def test_no_made_up_password_is_ever_locked() -> None:
    gate = login.Gate("random", "look", clock=Clock(), strong=True)
    who.address.set("198.51.100.7")
    for _ in range(200):
        gate("owner", "guess")
        gate("watch", "guess")
    assert gate("owner", "random")
    assert not gate("watch", "look"), "the second password was made by a person"


def test_a_token_is_asked_for_where_other_people_have_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pwd

    def account(name: str, number: int, shell: str = "/bin/bash", folder: str = str(tmp_path)) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", number, number, "", folder, shell))

    def here(me: int, *others: pwd.struct_passwd, network: bool = False) -> bool:
        found = {one.pw_uid: one for one in others}
        monkeypatch.setattr("pwd.getpwall", lambda: list(others))
        monkeypatch.setattr("pwd.getpwuid", lambda number: found[number] if not network else account("far", number))
        monkeypatch.setattr("os.getuid", lambda: me)
        return shared_host.shared()

    root, anna, bob = account("root", 0), account("anna", 2001), account("bob", 2002)
    assert not here(2001, root, anna)
    assert here(2001, root, anna, bob)
    assert not here(
        2001, root, anna, account("daemon", 2003, "/usr/sbin/nologin"), account("gone", 2004, folder="/nonexistent")
    )
    assert here(5_000, root, network=True), "an account of the network's"
    assert not here(5_000, root), "a number alone, in a container"
    assert here(0, root, anna, bob)


def test_a_name_for_others_makes_a_public_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_PUBLIC", "")
    monkeypatch.delenv("SPACE_ID", raising=False)
    from studio.ui import serving

    assert Reach(allow=("studio.example",)).public
    assert serving._gate(Reach(allow=("studio.example",))) is not None
    assert serving._gate(Reach()) is None


def test_the_home_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "new"))
    assert home().stat().st_mode & 0o777 == 0o700
    (tmp_path / "new").chmod(0o755)
    restrict_permissions()
    assert home().stat().st_mode & 0o777 == 0o700


# -- strangers


@pytest.fixture
def locking(page_home: Path) -> Iterator[Page]:
    with served(Reach(password="right horse", watch_password="only looking")) as found:
        yield found


def test_a_made_up_forwarded_address_escapes_no_limit(locking: Page) -> None:
    """Each try says that it comes from somewhere else; all come over one connection's other end, which is no proxy
    that was named.
    """
    tried = [sign_in(locking, "owner", "wrong", X_Forwarded_For=f"198.51.100.{n}") for n in range(login.PEER)]
    assert not any(tried)
    answer = locking.ask(
        "POST",
        "/login",
        "username=owner&password=right+horse",
        Content_Type="application/x-www-form-urlencoded",
        X_Forwarded_For="203.0.113.1",
    )
    assert answer.status == 429
    assert 0 < int(answer.headers["retry-after"]) <= login.WINDOW + 1


def test_the_owners_browser_is_let_in_while_strangers_try(locking: Page) -> None:
    answer = locking.ask(
        "POST", "/login", "username=owner&password=right+horse", Content_Type="application/x-www-form-urlencoded"
    )
    cookie = next(line for line in locking_cookies(locking) if "device" in line)
    assert answer.status == 200
    for n in range(login.CEILING + login.TRIES):
        sign_in(locking, "owner", "wrong", X_Forwarded_For=f"198.51.{n % 7}.{n}")
    assert not sign_in(locking, "owner", "right horse", X_Forwarded_For="198.51.0.0")
    assert sign_in(locking, "owner", "right horse", Cookie=cookie)
    forged = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
    assert not sign_in(locking, "owner", "right horse", Cookie=forged, X_Forwarded_For="198.51.0.0")


def locking_cookies(page: Page) -> list[str]:
    """Every cookie that a login sets."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.request(
        "POST", "/login", "username=owner&password=right+horse", {"Content-Type": "application/x-www-form-urlencoded"}
    )
    answer = connection.getresponse()
    return [value.split(";")[0] for key, value in answer.getheaders() if key.lower() == "set-cookie"]


def test_heartbeats_need_a_login_and_are_bounded(gated: Page, owner: str) -> None:
    assert gated.ask("GET", "/gradio_api/heartbeat/x").status == 401
    watcher = sign_in(gated, "watch", "only looking")
    most = concurrency.MOST["lasting"] // 4
    opened = [stream(gated.port, f"/gradio_api/heartbeat/s{n}", watcher) for n in range(most + 4)]
    try:
        statuses = [int(one.recv(64).split()[1]) for one in opened]
        assert statuses.count(200) == most
        assert statuses.count(429) == 4
        assert role(gated, owner) == "owner"
    finally:
        for one in opened:
            one.close()
    until = time.monotonic() + 60
    while (again := stream(gated.port, "/gradio_api/heartbeat/y", watcher)).recv(64).split()[1] != b"200":
        again.close()
        assert time.monotonic() < until, "closed ones give their place back"
        time.sleep(0.1)
    again.close()


def stream(port: int, path: str, cookie: str) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), timeout=10)
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n".encode())
    return one


def test_half_sent_heads_end_and_never_take_all_descriptors(page_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hundred connections that say only half, where the process may have few descriptors: the page goes on
    answering.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(bounded_http, "DESCRIPTORS", 256)
    monkeypatch.setattr(bounded_http, "SLOWEST", 1.0)
    with served(Reach()) as page, contextlib.ExitStack() as slow:
        protocol = page.blocks.server.config.http_protocol_class
        assert issubclass(protocol, bounded_http.Bounded)
        protocol.most = 32
        halves = []
        for n in range(300):
            halves.append(slow.enter_context(socket.create_connection(("127.0.0.1", page.port), timeout=10)))
            halves[-1].sendall(b"GET / HTTP/1.1\r\nHost: 127.0." if n % 2 else b"")
            if n % 50 == 0:
                assert page.ask("GET", "/theme.css").status == 200
        began = time.monotonic()
        assert page.ask("GET", "/config").status == 200
        assert time.monotonic() - began < 20
        assert len(protocol.awaited) <= 32
        assert len(page.blocks.server.server_state.connections) < 60
        until = time.monotonic() + 60
        while protocol.awaited and time.monotonic() < until:
            time.sleep(0.05)
        assert not protocol.awaited, "those that were left have ended by themselves"
        kept = slow.enter_context(socket.create_connection(("127.0.0.1", page.port), timeout=10))
        kept.sendall(f"GET /theme.css HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\n".encode())
        assert kept.recv(12) == b"HTTP/1.1 200"
        kept.sendall(b"GET / HTTP/1.1\r\nHo")  # the second request on a connection
        kept.settimeout(10)
        while kept.recv(65536):
            pass
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 256), hard))


UPLOAD_HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.json"\r\n\r\n'
JSON = "application/json"


@pytest.mark.parametrize(
    ("path", "kind", "head"),
    [
        ("/gradio_api/upload", "multipart/form-data; boundary=x", UPLOAD_HEAD),  # taken, for its owner
        ("/gradio_api/run/status", JSON, b"{"),
        ("/studio/ask/studio-bar/poll", JSON, b"{"),
        ("/gradio_api/cancel", JSON, b"{"),
        ("/gradio_api/nothing", JSON, b"{"),  # refused before its body
    ],
)
def test_a_body_that_never_ends_holds_no_connection(
    page: Page, monkeypatch: pytest.MonkeyPatch, path: str, kind: str, head: bytes
) -> None:
    """A byte now and then, or nothing more; an upload goes on for as long as something comes."""
    for name, seconds in {"SLOWEST": 0.4, "BODY": 0.8, "STALLED": 0.8}.items():
        monkeypatch.setattr(bounded_http, name, seconds)
    monkeypatch.setattr(request_body, "SLOWEST", 0.4)
    for drips in (True, False):
        with socket.create_connection(("127.0.0.1", page.port), timeout=0.2) as one:
            asked = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nContent-Type: {kind}\r\n"
            one.sendall(f"{asked}Content-Length: 5000\r\n\r\n".encode() + head)
            lasts = path.endswith("upload") and drips
            assert ended(one, drips, 2.0 if lasts else 60.0) != lasts


def ended(one: socket.socket, drips: bool, seconds: float) -> bool:
    """Whether the page ends a connection within so many seconds. drips: sends a byte every now and then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if drips:
                one.sendall(b"a")
            if not one.recv(65536):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_an_answer_that_nobody_takes_holds_no_connection(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "STALLED", 1.0)
    assets = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
    large = max(assets.glob("*.js"), key=lambda file: file.stat().st_size)
    living = page.blocks.server.server_state.connections
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", page.port))
        ask = f"GET /assets/{large.name} HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\n".encode()
        one.sendall(ask * 40)  # more than the system's own buffers hold
        time.sleep(0.5)
        assert living
        until = time.monotonic() + 60
        while living and time.monotonic() < until:
            time.sleep(0.1)
        assert not living


def test_the_login_form_is_small_and_quick(gated: Page) -> None:
    for body in (
        b"username=owner&password=" + b"x" * 10_000,
        b"",
        b"\xff\xfe",
        b"username=owner",
        b"password=right+horse",
        b"username=owner&password=\xe9",
    ):
        answer = gated.ask(
            "POST",
            "/login",
            body,
            Content_Type="application/x-www-form-urlencoded",
            X_Forwarded_For=f"203.0.113.{len(body) % 250}",
        )
        assert answer.status in (400, 429), body[:40]


@pytest.mark.parametrize(("wanted", "word"), [("en", "Log in"), ("zh-CN,zh;q=0.9", "登录"), ("de", "Log in")])
def test_the_login_page_speaks_the_browsers_language_and_needs_no_script(gated: Page, wanted: str, word: str) -> None:
    shown = gated.ask("GET", "/", Accept_Language=wanted).body
    assert word in shown
    assert "{" + "said}" not in shown
    browser = {
        "Accept": "text/html",
        "Content_Type": "application/x-www-form-urlencoded",
        "X_Forwarded_For": f"192.0.2.{len(wanted)}",
    }
    wrong = gated.ask("POST", "/login", "username=owner&password=no", Accept_Language=wanted, **browser)
    assert wrong.status == 400
    assert "<form" in wrong.body
    right = gated.ask("POST", "/login", "username=owner&password=right+horse", **browser)
    assert (right.status, right.headers["location"]) == (303, "./")


# -- what the system shows


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system shows no environments")
def test_no_secret_stands_in_the_environment_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.browser import App

    secret = {
        "STUDIO_PASSWORD": "s3cret-one",
        "STUDIO_WATCH_PASSWORD": "s3cret-two",
        "HF_TOKEN": "hf_s3cret",
        "STUDIO_JUDGE_KEY": "s3cret-three",
        "WANDB_API_KEY": "s3cret-four",
        "AWS_SECRET_ACCESS_KEY": "s3cret-five",
    }
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    with App(tmp_path / "home") as app:
        shown = Path(f"/proc/{app.process.pid}/environ").read_bytes().decode(errors="replace")
        assert "STUDIO_HOME" in shown
        assert "s3cret" not in shown
        page = type("At", (Page,), {"__init__": lambda self, port: setattr(self, "port", port)})(app.port)
        assert role(page, sign_in(page, "owner", "s3cret-one")) == "owner"
        assert role(page, sign_in(page, "watch", "s3cret-two")) == "watch"
    assert os.environ["HF_TOKEN"] == "hf_s3cret"
