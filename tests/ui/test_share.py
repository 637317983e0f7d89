"""--share, as far as the tunnel: what is printed, who gets in under the public name, and what is said when there is no
tunnel.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studio.ui.serving import Reach
from tests.ui.served import served
from tests.ui.test_login import sign_in

PUBLIC = "0123456789abcdef.gradio.live"


def test_a_shared_page_asks_for_the_password_it_printed(
    page_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("gradio.networking.setup_tunnel", lambda **told: asked.update(told) or f"http://{PUBLIC}")
    with served(Reach(share=True)) as page:
        out = capsys.readouterr().out
        assert f"Public address: https://{PUBLIC}" in out
        password = re.search(r"Log in as owner with the password (\S+)", out)[1]
        assert asked["local_port"] == page.port
        for path in ("/config", "/gradio_api/info", "/gradio_api/file=x", "/gradio_api/queue/status"):
            assert page.ask("GET", path, Host=PUBLIC).status == 401, path
        assert page.look("tune", "offer", {}, Host=PUBLIC).status == 401
        assert page.job("start", "data: {train: sample}", Host=PUBLIC).status in (401, 403)
        assert page.ask("GET", "/gradio_api/mcp/", Host=PUBLIC).status in (401, 404, 405)
        assert page.ask("GET", "/config", Host="another.example").status == 400
        assert not sign_in(page, "owner", "guess", Host=PUBLIC)
        cookie = sign_in(page, "owner", password, Host=PUBLIC)
        assert page.look("tune", "offer", {}, Host=PUBLIC, Origin=f"https://{PUBLIC}", Cookie=cookie).status == 200
        assert (
            page.look("tune", "offer", {}, Host=PUBLIC, Origin="https://evil.gradio.live", Cookie=cookie).status == 403
        )


def test_without_a_tunnel_the_page_is_served_here_and_says_so(
    page_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_tunnel(**_: object) -> str:
        raise RuntimeError("Could not get share link from Gradio API Server.")

    monkeypatch.setattr("gradio.networking.setup_tunnel", no_tunnel)
    with served(Reach(share=True)) as page:
        said = capsys.readouterr()
        assert "No public address" in said.out + said.err
        assert page.ask("GET", "/config").status == 401, "the login stays"
