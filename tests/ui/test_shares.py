"""Links to one run: read-only, expiring, opened by the token alone, and opening nothing else."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from studio.errors import RunError, StudioError
from studio.ui import shares
from tests.ui.fakes import FakeRun
from tests.ui.served import Page

RUN, OTHER = "2026-11-20-1000-shared-lora", "2026-11-20-1001-private-lora"


@pytest.fixture(autouse=True, scope="module")
def runs(page_home: Path) -> None:
    for name in (RUN, OTHER):
        run = FakeRun(name, steps=12)
        run.start(alive=False)
        run.train().finish()


def opened(page: Page, path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    """(status, text, headers), without any cookie."""
    request = urllib.request.Request(f"{page.address.rstrip(chr(47))}/{path.lstrip(chr(47))}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def test_a_link_opens_the_report_of_its_run_and_nothing_else(gated: Page) -> None:
    made = shares.share_run(RUN, 1)
    assert made["until"] == pytest.approx(time.time() + 86_400, abs=60)
    status, text, headers = opened(gated, made["path"])
    assert status == 200
    assert "shared-lora" in text
    assert "private-lora" not in text
    assert "<script" not in text
    assert headers["cache-control"] == "no-store"
    assert "noindex" in headers["x-robots-tag"]
    assert "set-cookie" not in {key.lower() for key in headers}
    assert opened(gated, "")[1].count("password"), "who opens a link is not logged in by it"
    token = made["path"].rpartition("/")[2]
    assert len(token) >= 40
    for path in ("config", "studio/ask/studio-bar/poll", "gradio_api/info", f"?token={token}"):
        assert opened(gated, path)[0] in (200, 401, 405)
    assert opened(gated, f"?token={token}")[1].count("password")
    assert opened(gated, made["path"], "POST")[0] in (401, 403, 405)


@pytest.mark.parametrize("token", ["", "x", "../../config", "%2e%2e/config", "a" * 43, "\u00e4".encode().hex(), "0/1"])
def test_other_tokens_open_nothing(gated: Page, token: str) -> None:
    status, text, _ = opened(gated, f"studio/shared/{token}")
    assert status in (401, 404)
    assert "lora" not in text


def test_an_expired_an_ended_and_a_deleted_one_open_nothing(gated: Page, page_home: Path) -> None:
    expired, ended = shares.share_run(RUN, 1)["path"], shares.share_run(OTHER, 1)["path"]
    assert opened(gated, expired)[0] == opened(gated, ended)[0] == 200
    assert shares.end_shares(OTHER)["ended"] == 1
    assert opened(gated, ended)[0] == 404
    assert opened(gated, expired)[0] == 200, "the links of another run stay"
    file = page_home / "shares.json"
    links = json.loads(file.read_text())
    file.write_text(json.dumps({key: link | {"until": time.time() - 1} for key, link in links.items()}))
    assert opened(gated, expired)[0] == 404
    gone = FakeRun("2026-11-20-1002-gone-lora", steps=12)
    gone.start(alive=False)
    gone.train().finish()
    path = shares.share_run(gone.folder.name, 1)["path"]
    for inner in sorted(gone.folder.rglob("*"), reverse=True):
        inner.rmdir() if inner.is_dir() else inner.unlink()
    gone.folder.rmdir()
    assert opened(gated, path)[0] == 404


def test_only_a_hash_of_a_token_is_kept_for_its_owner_alone(page_home: Path) -> None:
    token = shares.share_run(RUN)["path"].rpartition("/")[2]
    file = page_home / "shares.json"
    assert token not in file.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", next(iter(json.loads(file.read_text()))))
    assert file.stat().st_mode & 0o077 == 0
    assert len(shares.shares({"id": RUN})["links"]) >= 1


@pytest.mark.parametrize("days", [0, -1, 91, 10**9])
def test_odd_days_are_refused(days: int, page_home: Path) -> None:
    with pytest.raises(RunError, match="cannot last"):
        shares.share_run(RUN, days)


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", '{"a": 1}', '{"a": {"run": 1}}', '{"a": {"run": "x", "until": "y"}}']
)
def test_a_damaged_file_opens_nothing_and_harms_nothing(text: str, page_home: Path) -> None:
    (page_home / "shares.json").write_text(text)
    assert shares.shares({"id": RUN}) == {"links": []}
    assert shares.share_run(RUN)["run"] == RUN


def test_a_run_that_is_not_there_is_not_shared(page_home: Path) -> None:
    for name in ("2026-01-01-0000-nobody", "../../etc", "", "\0"):
        with pytest.raises(StudioError):
            shares.share_run(name)
