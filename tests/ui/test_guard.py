"""Foreign sites, foreign names, wrong passwords, raw calls, paths: what a stranger could try, and what comes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlencode

import pytest

from studio import config
from studio.errors import OrderError
from studio.run import runs
from studio.ui import guard
from tests.ui.served import Page

ROUTES = ("/gradio_api/run/start", "/gradio_api/run/stop", "/gradio_api/call/start", "/gradio_api/queue/join", "/gradio_api/upload",
          "/gradio_api/component_server/", "/login")
KINDS = ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
ORIGINS = ("https://evil.test", "null", "http://localhost.evil.test", "http://127.0.0.1.evil.test", "http://127.0.0.1:1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", ROUTES)
def test_posts_of_other_sites_are_refused(page: Page, route: str, kind: str, order_yaml: str) -> None:
    body = json.dumps({"data": [order_yaml]})
    for headers in ({"Origin": "https://evil.test"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}):
        assert page.ask("POST", route, body, Content_Type=kind, **headers).status == 403
    assert not runs()


@pytest.mark.parametrize("origin", ORIGINS)
def test_look_alike_origins_are_refused(page: Page, origin: str) -> None:
    assert page.job("status", "last", Origin=origin).status == 403


def test_the_page_itself_may_post(page: Page) -> None:
    own = f"127.0.0.1:{page.port}"
    assert page.job("status", "nothing", Host=own, Origin=f"http://{own}", Sec_Fetch_Site="same-origin").status == 500  # refused by the job, in words
    assert "There is no run" in page.job("status", "nothing").json["error"]


@pytest.mark.parametrize("route", ["/", "/config", "/gradio_api/info", "/gradio_api/file=app.py", "/gradio_api/queue/status", "/theme.css", "/static/x"])
def test_foreign_names_are_not_served(page: Page, route: str) -> None:
    for host in ("attacker.test", "localhost.attacker.test", "", "127.0.0.1@attacker.test", "x.gradio.live"):
        assert page.ask("GET", route, Host=host).status == 400
    assert page.ask("GET", route, Host=f"localhost:{page.port}").status != 400


def test_names_that_are_served() -> None:
    assert "abc.gradio.live" in guard.Names(share=True)
    assert "192.168.1.5:7860" in guard.Names("0.0.0.0")
    assert "attacker.test" not in guard.Names("0.0.0.0", share=True)
    assert "proxy.example" in guard.Names(extra=["Proxy.example"])
    assert "[::1]:7860" in guard.Names()


def test_nothing_from_elsewhere_is_allowed_in_the_page(page: Page) -> None:
    headers = page.ask("GET", "/").headers
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


FILES = ("{home}/token", "{home}/.env", "{home}/runs/x/log.txt", "/etc/passwd", "{home}/../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
         "{project}/app.py", "{project}/APP.PY", "{project}/.git/config", "{home}/link")


@pytest.mark.parametrize("path", FILES)
def test_no_file_is_handed_out(page: Page, page_home: Path, path: str) -> None:
    (page_home / "runs" / "x").mkdir(parents=True, exist_ok=True)
    for name in ("token", ".env", "runs/x/log.txt"):
        (page_home / name).write_text("secret")
    if not (page_home / "link").is_symlink():
        (page_home / "link").symlink_to("/etc/passwd")
    wanted = path.format(home=page_home, project=Path(guard.__file__).parents[2])
    answer = page.ask("GET", f"/gradio_api/file={wanted}")
    assert answer.status in (403, 404)
    assert "secret" not in answer.body


def test_upload_over_the_limit_is_refused(page_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.ui import serving
    from tests.ui.served import served
    monkeypatch.setattr(serving, "UPLOAD", 2000)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.json"\r\n\r\n'
    with served() as small:
        large = head + b"1" * 5000 + b"\r\n--x--\r\n"
        assert small.ask("POST", "/gradio_api/upload", large, Content_Type="multipart/form-data; boundary=x").status == 413
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large)
        assert small.ask("POST", "/gradio_api/upload", chunk, Content_Type="multipart/form-data; boundary=x", Transfer_Encoding="chunked").status == 413
    kept = [file for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if file.is_file() and file.stat().st_size > 2000]
    assert not kept


def test_wrong_passwords_lock_the_login() -> None:
    now = [0.0]
    gate = guard.Gate("right", "look", clock=lambda: now[0])
    assert gate("owner", "right")
    assert gate("watch", "look")
    assert not gate("owner", "look")
    assert not gate("watch", "")
    assert not gate("stranger", "")
    assert not guard.Gate("right")("watch", "")
    for _ in range(20):
        assert not gate("owner", "wrong")
    assert not gate("owner", "right"), "locked"
    now[0] += guard.WINDOW + 1
    assert gate("owner", "right")


def _login(page: Page, user: str, password: str) -> str:
    answer = page.ask("POST", "/login", urlencode({"username": user, "password": password}), Content_Type="application/x-www-form-urlencoded")
    assert answer.status == 200, answer.body
    return answer.headers["set-cookie"].split(";")[0]


@pytest.mark.parametrize("route", ["/config", "/gradio_api/info", "/gradio_api/file=x", "/gradio_api/queue/status"])
def test_without_login_nothing_is_told(gated: Page, route: str) -> None:
    assert gated.ask("GET", route).status in (401, 404, 405)


def test_without_login_nothing_is_done(gated: Page, order_yaml: str) -> None:
    for answer in (gated.job("start", order_yaml), gated.job("status", "last"), gated.look("tune", "offer", {}), gated.ask("POST", "/gradio_api/upload", b"x")):
        assert answer.status in (401, 403)
    assert not runs()
    assert "studio" in gated.ask("GET", "/").body.lower(), "the login page"


def test_who_watches_changes_nothing(gated: Page, order_yaml: str) -> None:
    cookie = _login(gated, "watch", "only looking")
    offer = gated.look("tune", "offer", {}, Cookie=cookie)
    assert offer.status == 200
    assert offer.headers["x-studio-may"].split() == ["status", "inspect", "estimate"], "so the page greys the rest"
    assert "There is no run" in gated.job("status", "nothing", Cookie=cookie).body
    for name in ("start", "stop", "import", "delete", "resume", "chat", "chat_ask"):
        assert gated.job(name, order_yaml, Cookie=cookie).status == 403, name
    for route in ("/gradio_api/queue/join", "/gradio_api/call/start", "/gradio_api/upload", "/gradio_api/reset", "/gradio_api/run/start/",
                  "/gradio_api//run/start"):
        assert gated.ask("POST", route, "{}", Content_Type="application/json", Cookie=cookie).status in (403, 404)
    assert not runs()


def test_the_owner_may_work(gated: Page) -> None:
    cookie = _login(gated, "owner", "right horse")
    assert gated.look("tune", "offer", {}, Cookie=cookie).headers["x-studio-may"] == "*"
    assert "There is no run" in gated.job("stop", "nothing", False, Cookie=cookie).body


def test_tools_for_machines_are_off(page: Page) -> None:
    assert page.ask("GET", "/gradio_api/mcp/").status in (404, 405)
    assert page.ask("GET", "/gradio_api/monitoring").status in (401, 403, 404)
    assert not page.blocks.run_history


@pytest.mark.parametrize("source", ["/etc/passwd", "../secret.json", "~/.ssh/id_rsa", "/proc/self/environ"])
def test_where_others_look_on_only_own_folders_are_read(home: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv(guard.PUBLIC, "1")
    with pytest.raises(OrderError, match="outside"):
        guard.allow(config.build({"data": {"train": source}}))
    with pytest.raises(OrderError, match="outside"):
        guard.allow(config.build({"data": {"train": "sample"}, "model": "/etc"}))
    (home / "uploads").mkdir()
    (home / "uploads" / "mine.json").write_text("[]")
    guard.allow(config.build({"data": {"train": str(home / "uploads" / "mine.json")}}))
    guard.allow(config.build({"data": {"train": "sample"}}))
