"""app.py: who can reach the page, and that a login is made up where others can."""

from __future__ import annotations

import re

import pytest

import app
from studio.ui import files, serving
from studio.ui.serving import Reach


def test_only_this_computer_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    args = app.arguments([])
    assert args.host == "127.0.0.1"
    assert not Reach(args.host).public


@pytest.mark.parametrize("reach", [Reach(host="0.0.0.0"), Reach(share=True), Reach(host="192.168.1.4")])
def test_others_need_a_password_which_is_made_and_told(
    reach: Reach, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(files.PUBLIC, "")
    gate = serving._gate(reach)
    told = re.search(r"Log in as owner with the password (\S+)", capsys.readouterr().out)
    assert len(told[1]) >= 16
    assert gate("owner", told[1])
    assert not gate("owner", "")


def test_a_given_password_is_not_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv(files.PUBLIC, "")
    assert serving._gate(Reach(share=True, password="mine"))("owner", "mine")
    assert "mine" not in "".join(capsys.readouterr())


def test_what_launch_is_told() -> None:
    told = serving.options()
    assert told["run_history"] is False
    assert told["enable_monitoring"] is False
    assert told["mcp_server"] is False
    assert told["allowed_paths"] == []
    assert "fonts.googleapis" not in told["head"]
    # An address may stand in the words of a hint; nothing may be loaded from one.
    loads = r"""(?:src|href)=["']?|url\(["']?|(?:fetch|import|open)\(["'`]|(?:from|import)\s+["']"""
    assert not re.search(rf"(?:{loads})(?:https?:)?//(?!www\.w3\.org|huggingface\.co)", told["head"]), (
        "the page's scripts load nothing from another site"
    )
