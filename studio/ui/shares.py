"""Links to one run for a colleague: its report, read-only and without a login, until a link expires or is ended.

A link carries a random token, of which only a hash is kept (shares.json in the home). It opens nothing but the report.
"""

from __future__ import annotations

import hashlib
import html
import json
import secrets
import time
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from studio import json_text
from studio.errors import RunError, StudioError
from studio.export import report as page_report
from studio.home import changing, home, write_atomic
from studio.ui import guard, live, rights, words
from studio.ui.translated_html import translated

DAYS = 90  # that a link may last
MOST = 500  # links at once
ENDED = "This link has ended, or the run is gone."
PRIVATE = {"cache-control": "no-store", "x-robots-tag": "noindex, nofollow"}

Links = dict[str, dict[str, Any]]  # hash of a token -> {run, until}; until: seconds, UTC


@rights.job()
def share_run(name: str, days: int = 7) -> dict[str, Any]:
    """A new link to a run's report. Returns {run, path, until}; the path is told here alone. Raises RunError."""
    run_ = live.get_run(name)
    if not 1 <= days <= DAYS:
        raise RunError(f"A link cannot last {days} days.", f"Give 1 to {DAYS} days.", "days")
    token, until = secrets.token_urlsafe(32), time.time() + days * 86_400
    with changing(_file()):
        links = _living()
        if len(links) >= MOST:
            raise RunError(f"There are {MOST} links already.", "End those of another run first.", "days")
        _write(links | {_hash(token): {"run": run_.id, "until": until}})
    return {"run": run_.id, "path": f"{guard.SHARED[1:]}{token}", "until": until}


@rights.job()
def end_shares(name: str) -> dict[str, Any]:
    """End every link to a run. Returns {run, ended}."""
    with changing(_file()):
        links = _living()
        kept = {key: link for key, link in links.items() if link["run"] != name}
        _write(kept)
    return {"run": name, "ended": len(links) - len(kept)}


@rights.read()
def shares(question: dict[str, Any]) -> dict[str, Any]:
    """{links: [until, …]}: when the links to a run expire."""
    return {"links": sorted(link["until"] for link in _living().values() if link["run"] == str(question.get("id")))}


def route() -> Route:
    """Where links lead. Who holds a living token may read one run's report; nothing else is looked at."""

    async def shared(request: Request) -> Response:
        return await anyio.to_thread.run_sync(_answer, request, limiter=rights.SLOW_READ_LIMITER)

    return Route(f"{guard.SHARED}{{token}}", shared, methods=["GET"])


def _answer(request: Request) -> Response:
    link = _living().get(_hash(request.path_params["token"]))
    lang = words.language(request.query_params.get("lang") or request.headers.get("accept-language"))
    try:
        if link is not None:
            page = page_report.report(live.get_run(link["run"]), alone=True)
            return HTMLResponse(translated(page, lang), headers=PRIVATE)
    except (StudioError, OSError):  # deleted since
        pass
    return HTMLResponse(f"<!doctype html><p>{html.escape(words.say(ENDED, lang))}</p>", 404, PRIVATE)


def _file() -> Path:
    return home() / "shares.json"


def _living() -> Links:
    """The links that have not expired."""
    links: Links = json_text.read_or_default(_file(), {})
    return {key: link for key, link in links.items() if _is_link(link) and link["until"] > time.time()}


def _is_link(link: Any) -> bool:
    """Whether an entry of the file is one of ours: the file may be damaged."""
    return isinstance(link, dict) and isinstance(link.get("run"), str) and isinstance(link.get("until"), int | float)


def _write(links: Links) -> None:
    write_atomic(_file(), json.dumps(links), 0o600)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
