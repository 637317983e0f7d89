"""Foreign sites, foreign names, wrong passwords, raw calls, paths: what a stranger could try, and what comes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from studio import config
from studio.errors import OrderError
from studio.run import runs
from studio.ui import files, guard
from studio.ui.host_names import HostNames
from tests.ui.served import Page, routes

ROUTES = (
    "/gradio_api/run/start",
    "/gradio_api/call/start",
    "/gradio_api/queue/join",
    "/gradio_api/upload",
    "/studio/ask/tune/look",
    "/login",
)
KINDS = ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
ORIGINS = (
    "https://evil.test",
    "null",
    "http://localhost.evil.test",
    "http://127.0.0.1.evil.test",
    "http://127.0.0.1:1",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", ROUTES)
def test_posts_of_other_sites_are_refused(page: Page, route: str, kind: str, order_yaml: str) -> None:
    body = json.dumps({"data": [order_yaml]})
    for headers in ({"Origin": "https://evil.test"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}):
        assert page.ask("POST", route, body, Content_Type=kind, **headers).status == 403
    assert not runs()


def test_no_route_at_all_takes_a_post_of_another_site(page: Page) -> None:
    for path in routes(page, "POST"):
        assert page.ask("POST", path, "{}", Content_Type="text/plain", Origin="https://evil.test").status in (
            403,
            404,
        ), path


def test_no_read_of_another_sites_script_is_answered(page: Page) -> None:
    """Gradio would allow it to see the answer, wherever the page is served under a name (a Space, a tunnel)."""
    for path in routes(page, "GET"):
        assert page.ask("GET", path, Origin="https://evil.test").status in (403, 404), path
    assert page.ask("GET", "/config", Origin=f"http://127.0.0.1:{page.port}").status == 200


@pytest.mark.parametrize("origin", ORIGINS)
def test_look_alike_origins_are_refused(page: Page, origin: str) -> None:
    assert page.job("status", "last", Origin=origin).status == 403


def test_the_page_itself_may_post(page: Page) -> None:
    own = f"127.0.0.1:{page.port}"
    assert (
        page.job("status", "nothing", Host=own, Origin=f"http://{own}", Sec_Fetch_Site="same-origin").status == 400
    )  # refused by the job, in words
    assert "There is no run" in page.job("status", "nothing").json["error"]


@pytest.mark.parametrize(
    "host", ["attacker.test", "localhost.attacker.test", "", "127.0.0.1@attacker.test", "x.gradio.live"]
)
def test_foreign_names_are_not_served_on_any_route(page: Page, host: str) -> None:
    for path in routes(page, "GET"):
        assert page.ask("GET", path, Host=host).status == 400, path
    for path in routes(page, "POST"):
        assert page.ask("POST", path, "{}", Host=host, Content_Type="application/json").status == 400, path
    assert page.ask("GET", "/config", Host=f"localhost:{page.port}").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_Host": "attacker.test"},
        {"X_Forwarded_Host": "localhost, attacker.test"},
        {"X_Gradio_Server": "http://attacker.test"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/config"])
def test_no_header_writes_a_foreign_address_into_the_page(page: Page, headers: dict[str, str], path: str) -> None:
    answer = page.ask("GET", path, Host=f"localhost:{page.port}", **headers)
    assert answer.status == 200
    assert "attacker.test" not in answer.body
    assert "localhost:1" in page.ask("GET", path, X_Forwarded_Host="localhost:1").body, "a proxy's own name is taken"


def test_names_that_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "abc.gradio.live" in HostNames(share=True)
    assert "192.168.1.5:7860" in HostNames("0.0.0.0")
    assert "attacker.test" not in HostNames("0.0.0.0", share=True)
    assert "proxy.example" in HostNames(extra=["Proxy.example"])
    assert "[::1]:7860" in HostNames()
    monkeypatch.setenv("SPACE_HOST", "anna-studio.hf.space,studio.example.org")  # a Space with a domain of its own
    assert "studio.example.org" in HostNames()
    assert "anna-studio.hf.space" in HostNames()


def test_gradios_own_doors_that_the_page_does_not_use_are_shut(page: Page) -> None:
    for path in guard.UNUSED:
        assert page.ask("GET", f"{path}?session_hash=x").status == 404
        assert page.ask("POST", f"{path}/", "{}", Content_Type="application/json").status == 404


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("{}", "text/plain", 415),
        ("{}", "application/x-www-form-urlencoded", 415),
        ("{", "application/json", 400),
        ("[1]", "application/json", 400),
        ('"' + "x" * 5_000_000 + '"', "application/json", 413),
    ],
)
def test_questions_are_one_json_object(page: Page, body: str, kind: str, status: int) -> None:
    assert page.ask("POST", "/studio/ask/tune/look", body, Content_Type=kind).status == status
    assert page.ask("POST", "/studio/ask/tune/__class__", "{}", Content_Type="application/json").status == 404


def test_nothing_from_elsewhere_is_allowed_in_the_page(page: Page) -> None:
    headers = page.ask("GET", "/").headers
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


CALLS = (  # (end of the address, body, status)
    ("run/status", {"data": []}, 400),
    ("run/status", {"data": ["last", "more"]}, 400),
    ("run/status", {"data": {"name": "last"}}, 400),
    ("run/status", {}, 400),
    ("run/status", [], 400),
    ("run/nothing", {"data": ["last"]}, 404),
    ("run/status", {"data": ["last"], "fn_index": 99_999}, 404),
    ("run/status", {"data": ["last"], "fn_index": "0"}, 404),
    ("run/status", {"data": ["last"], "session_hash": "x" * 65}, 400),
    ("run/status", {"data": ["last"], "session_hash": 5}, 400),
    ("call/v2/status", {}, 400),
    ("call/v2/status", {"data": ["last"]}, 400),
    ("call/v2/nothing", {"name": "last"}, 404),
    ("call/v2/status", {"name": "last"}, 200),
    ("call/status", {"data": []}, 400),
    ("queue/join", {"data": [], "fn_index": 0, "session_hash": "x"}, 400),
    ("queue/join", {"data": ["x"], "fn_index": -1, "session_hash": "x"}, 404),
)


@pytest.mark.parametrize(("path", "body", "status"), CALLS)
def test_a_call_of_no_job_or_with_other_values_is_refused_in_words(
    page: Page, path: str, body: object, status: int
) -> None:
    answer = page.ask("POST", f"/gradio_api/{path}", json.dumps(body), Content_Type="application/json")
    assert answer.status == status, answer.body
    assert status == 200 or (" " in answer.body and not answer.body.startswith("{"))


def test_the_sessions_that_gradio_keeps_are_few(page: Page) -> None:
    """Each costs some 130 kB, and whoever may look can name as many as he likes."""
    for number in range(300):
        body = json.dumps({"data": ["last"], "session_hash": f"s{number}"})
        page.ask("POST", "/gradio_api/run/status", body, Content_Type="application/json")
    assert len(page.blocks.state_holder.session_data) <= 256


FILES = (
    "{home}/token",
    "{home}/.env",
    "{home}/runs/x/log.txt",
    "/etc/passwd",
    "{home}/../../../etc/passwd",
    "%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "{project}/app.py",
    "{project}/APP.PY",
    "{project}/.git/config",
    "{home}/link",
    "{uploads}/link",
    "{uploads}/../home/token",
    "https://huggingface.co/robots.txt",
)


@pytest.mark.parametrize("path", FILES)
def test_no_file_is_handed_out(page: Page, page_home: Path, path: str) -> None:
    (page_home / "runs" / "x").mkdir(parents=True, exist_ok=True)
    for name in ("token", ".env", "runs/x/log.txt"):
        (page_home / name).write_text("secret")
    if not (page_home / "link").is_symlink():
        (page_home / "link").symlink_to("/etc/passwd")
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    uploads.mkdir(parents=True, exist_ok=True)
    if not (uploads / "link").is_symlink():
        (uploads / "link").symlink_to(page_home / "token")  # the one folder whose files are handed out
    wanted = path.format(home=page_home, uploads=uploads, project=Path(guard.__file__).parents[2])
    for way in ("/gradio_api/file=", "/gradio_api/file/", "/gradio_api/proxy="):
        answer = page.ask("GET", f"{way}{wanted}")
        assert answer.status in (400, 401, 403, 404), (way, answer.status)
        assert "secret" not in answer.body


def test_upload_over_the_limit_is_refused(page_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.ui import serving
    from tests.ui.served import served

    monkeypatch.setattr(serving, "UPLOAD", 2000)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.json"\r\n\r\n'
    with served() as small:
        large = head + b"1" * 5000 + b"\r\n--x--\r\n"
        assert (
            small.ask("POST", "/gradio_api/upload", large, Content_Type="multipart/form-data; boundary=x").status == 413
        )
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large)
        assert (
            small.ask(
                "POST",
                "/gradio_api/upload",
                chunk,
                Content_Type="multipart/form-data; boundary=x",
                Transfer_Encoding="chunked",
            ).status
            == 413
        )
    kept = [
        file for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if file.is_file() and file.stat().st_size > 2000
    ]
    assert not kept


@pytest.mark.parametrize("source", ["/etc/passwd", "../secret.json", "~/.ssh/id_rsa", "/proc/self/environ"])
def test_where_others_look_on_only_own_folders_are_read(
    home: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv(files.PUBLIC, "1")
    with pytest.raises(OrderError, match="outside"):
        files.allow(config.build({"data": {"train": source}}))
    with pytest.raises(OrderError, match="outside"):
        files.allow(config.build({"data": {"train": "sample"}, "model": "/etc"}))
    (home / "uploads").mkdir()
    (home / "uploads" / "mine.json").write_text("[]")
    files.allow(config.build({"data": {"train": str(home / "uploads" / "mine.json")}}))
    files.allow(config.build({"data": {"train": "sample"}}))
