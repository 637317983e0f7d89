"""The page as a Hugging Face Space serves it, in a process with a Space's environment: owner and visitors, ZeroGPU, the
lasting disk.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import App, browser, chromium_path
from tests.ui.served import Page

SPACE = {
    "SYSTEM": "spaces",
    "SPACE_ID": "anna/studio",
    "SPACE_AUTHOR_NAME": "anna",
    "SPACE_REPO_NAME": "studio",
    "SPACE_HOST": "anna-studio.hf.space",
    "ACCELERATOR": "none",
    "CPU_CORES": "2",
}
LOGIN = {
    "OAUTH_CLIENT_ID": "an-id",
    "OAUTH_CLIENT_SECRET": "a-secret",
    "OAUTH_SCOPES": "openid profile",
    "OPENID_PROVIDER_URL": "https://huggingface.co",
}
HOST = {"Host": SPACE["SPACE_HOST"], "Origin": f"https://{SPACE['SPACE_HOST']}", "Sec_Fetch_Site": "same-origin"}


class At(Page):
    """A served page in another process, asked as the Space's proxy asks."""

    def __init__(self, app: App):
        self.port, self.home = app.port, app.home

    def ask(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Any:
        return super().ask(method, path, body, **{**HOST, **headers})


def served(home: Path, environment: dict[str, str]) -> Iterator[At]:
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STUDIO_PASSWORD", "STUDIO_OPEN", "HF_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        with App(home, options=("--host", "0.0.0.0")) as app:
            yield At(app)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[At]:
    pytest.importorskip("authlib")
    yield from served(tmp_path_factory.mktemp("space") / "home", SPACE | LOGIN)


@pytest.fixture(scope="module")
def zero(tmp_path_factory: pytest.TempPathFactory) -> Iterator[At]:
    yield from served(tmp_path_factory.mktemp("zero") / "home", SPACE | {"SPACES_ZERO_GPU": "true"})


def profile(name: str, hours: float = 8) -> str:
    """The session cookie of somebody whom Hugging Face has let in, as gradio signs it."""
    from itsdangerous import TimestampSigner

    told = {
        "oauth_info": {
            "access_token": "t",
            "expires_at": int(time.time() + 3600 * hours),
            "userinfo": {"sub": "1", "name": name, "preferred_username": name, "profile": "", "picture": ""},
        }
    }
    secret = hashlib.sha256(f"{LOGIN['OAUTH_CLIENT_SECRET']}-v4".encode()).hexdigest()
    return "session=" + TimestampSigner(secret).sign(base64.b64encode(json.dumps(told).encode())).decode()


ORDER = {"data": {"train": "sample"}}


@pytest.mark.slow
def test_a_visitor_looks_and_chats_and_trains_nothing(space: At) -> None:
    for cookie in ("", profile("bob"), profile("anna", hours=-1), profile("anna")[:-2] + "xx"):
        offer = space.look("tune", "offer", {}, Cookie=cookie)
        assert offer.status == 200
        may = offer.headers["x-studio-may"].split()
        assert {"status", "chat", "chat_ask"} <= set(may)
        assert not {"start", "delete", "import"} & set(may)
        assert space.job("start", "data: {train: sample}", Cookie=cookie).status == 403
        assert space.ask("POST", "/gradio_api/upload", b"x", Cookie=cookie).status == 403
        assert "There is no run" in space.job("chat", "base:somebody/huge-model", "hello", Cookie=cookie).body, (
            "no model is fetched for a visitor"
        )
        assert (
            "Only the owner may fetch it"
            in space.look("data", "inspect", {"order": {"data": {"train": "somebody/huge-data"}}}, Cookie=cookie).body
        )


@pytest.mark.slow
def test_a_visitors_page_asks_nothing_that_is_refused(space: At) -> None:
    """The way in is a link: no event of the page runs when it loads, and no file of gradio's folder is shown."""
    page = space.ask("GET", "/").body
    config = json.JSONDecoder().raw_decode(page.partition("window.gradio_config = ")[2])[0]
    assert not [one for one in config["dependencies"] if any(kind == "load" for _, kind in one["targets"])]
    door = next(one["props"] for one in config["components"] if one["props"].get("elem_id") == "studio-login")
    assert door["link"].startswith("/login/huggingface")
    assert door.get("icon") is None


@pytest.mark.slow
@pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")
def test_the_way_in_is_named_in_the_pages_language(space: At) -> None:
    """Gradio writes its login button in English alone; a visitor who reads Chinese reads it in Chinese."""
    with browser() as opened:
        page = opened.new_page()
        page.goto(f"http://127.0.0.1:{space.port}/?lang=zh")
        page.locator("#studio-login", has_text="使用 Hugging Face 登录").wait_for(timeout=60000)
        door = page.locator("#studio-login")
        assert door.get_attribute("href").startswith("/login/huggingface")
        page.locator(".studio-tongue").click()
        assert door.inner_text() == "Sign in with Hugging Face"


@pytest.mark.slow
@pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")
def test_a_visitor_opens_every_tab_and_is_refused_nothing(space: At) -> None:
    """Each tab in Chromium: no answer of 400 or more, no script error, and no button that the server would refuse."""
    with browser() as opened:
        page, refused = opened.new_page(), []
        page.on("response", lambda answer: refused.append((answer.status, answer.url)) if answer.status >= 400 else 0)
        page.on("pageerror", lambda error: refused.append(str(error)))
        page.goto(f"http://127.0.0.1:{space.port}/?tab=tune")
        page.wait_for_function("window.studio?.live?.ready && !studio.may('start')", timeout=60000)
        for tab in ("data", "tune", "runs", "chat"):
            page.locator(f".studio-nav a[data-tab={tab}]").click()
            page.wait_for_timeout(1500)
            offered = "[...document.querySelectorAll('[data-job]')].filter((node) => !node.disabled)"
            assert page.evaluate(f"{offered}.map((node) => node.dataset.job).filter((job) => !studio.may(job))") == []
        assert refused == []


@pytest.mark.slow
def test_the_owner_trains(space: At) -> None:
    cookie = profile("anna")
    assert space.look("tune", "offer", {}, Cookie=cookie).headers["x-studio-may"] == "*"
    refused = space.job("start", "data: {train: nowhere.json}", Cookie=cookie)
    assert "nowhere.json" in refused.json["error"], "an order of the owner's is read"
    summary = space.look("tune", "look", {"order": ORDER}, Cookie=cookie).json
    assert summary["blocked"] is None
    assert "emptied" in summary["note"], "the disk does not last"


@pytest.mark.slow
def test_signing_in_leads_to_hugging_face_and_nowhere_else(space: At) -> None:
    assert space.ask("GET", "/").status == 200
    assert space.ask("GET", "/logout?_target_url=https://evil.test/x").headers["location"] == "/x"
    assert space.ask(
        "POST", "/login", "username=owner&password=", Content_Type="application/x-www-form-urlencoded"
    ).status in (302, 307, 400, 404, 422)


@pytest.mark.slow
def test_zero_gpu_says_why_and_offers_a_copy(zero: At) -> None:
    told = zero.look("tune", "look", {"order": ORDER}).json
    assert "ZeroGPU" in told["blocked"]
    assert told["duplicate"].endswith("anna/studio?duplicate=true")
    assert told["data"]["rows"] > 50, "checking data works"
    assert zero.job("start", "data: {train: sample}").status == 403


@pytest.mark.slow
def test_nothing_of_the_environment_is_told(space: At) -> None:
    for path in ("/", "/config", "/gradio_api/info"):
        assert LOGIN["OAUTH_CLIENT_SECRET"] not in space.ask("GET", path).body
