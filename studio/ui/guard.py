"""What a request may do: which Host names are answered, which posts are the page's own, what each role may call.

Gradio checks none of this: any name that points here is answered (DNS rebinding), a few of its routes take plain-text and form posts
from any web site, and who is logged in may call everything.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

from studio import data
from studio.config import RunConfig
from studio.errors import OrderError
from studio.home import PROJECT, home
from studio.ui import live, who
from studio.ui.names import Names, of_space
from studio.ui.who import NOBODY, OWNER

ASK = "/studio/ask/"  # the page's reading questions (questions.py)
WATCHED = ("status", "inspect", "estimate")  # the jobs that change nothing
VISITED = ("chat", "chat_ask", "chat_stop", "chat_load")  # and those a visitor of a Space may use as well
UNUSED = ("/gradio_api/deep_link", "/gradio_api/component_server", "/gradio_api/process_recording")  # gradio's, not the page's; each writes or calls
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
          "font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self'; object-src 'none'; base-uri 'self'")
PUBLIC = "STUDIO_PUBLIC"  # set in the environment of a page that others can reach


class Guard:
    """ASGI middleware: 400 for a foreign Host, 403 for a post of another site or beyond one's rights. Adds headers that forbid foreign content."""

    def __init__(self, app: Any, names: Names, role: Callable[[dict[str, Any]], str] | None = None, visitors: bool = False):
        self.app, self.names, self.role, self.visitors = app, names, role, visitors

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        role = self.role(scope) if self.role else OWNER
        refusal = self.refusal(scope, role)
        if refusal:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
            return
        who.role.set(role)
        who.address.set((scope.get("client") or ("",))[0])
        await self.app(scope, receive, _with_headers(send, self.may(scope, role)))

    def refusal(self, scope: dict[str, Any], role: str = OWNER) -> tuple[int, str] | None:
        """(status, sentence) for what is not let through."""
        headers = dict(scope["headers"])
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        if len(hosts) != 1 or hosts[0] not in self.names:
            return 400, "This name is not served here. Start the studio with --allow-host NAME to serve it."
        if scope["path"].rstrip("/") in UNUSED:
            return 404, "Not found."
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        if headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
            return 403, "Posts from other sites are refused."
        origin = headers.get(b"origin")
        if origin is not None and not self._own(origin.decode("latin-1"), hosts[0]):
            return 403, "Posts from other sites are refused."
        return self._beyond(scope["path"].rstrip("/"), role)

    def _own(self, origin: str, host: str) -> bool:
        try:
            there = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return bool(there) and (there == host.lower() or there in of_space())

    def _beyond(self, path: str, role: str) -> tuple[int, str] | None:
        """A post that its sender has no right to. Only looking, and logging in and out, is for everybody who may look."""
        if role == OWNER or path in ("/login", "/logout"):
            return None
        if path.startswith(ASK):
            return (401, "Log in first.") if role == NOBODY else None
        if any(path == f"/gradio_api/{way}/{job}" for way in ("run", "api") for job in self._allowed()):
            return None
        return 403, "Only the owner may do this here."

    def _allowed(self) -> tuple[str, ...]:
        return WATCHED + (VISITED if self.visitors else ())

    def may(self, scope: dict[str, Any], role: str = OWNER) -> str | None:
        """The jobs that somebody may call, for the page to grey the others; "*" for all. Said with every answer to a reading question, None elsewhere."""
        if not scope["path"].startswith(ASK):
            return None
        return "*" if role == OWNER else " ".join(self._allowed())


def _with_headers(send: Any, may: str | None) -> Any:
    said = [(b"x-studio-may", may.encode())] if may else []

    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"),
                                  (b"content-security-policy", POLICY.encode()), *said]
        await send(message)
    return sending


def allow(order: RunConfig) -> None:
    """Refuse an order that names files outside the studio's own folders where others can reach the page, and what would have to be fetched
    for somebody who only looks. Raises OrderError.
    """
    named = [one.source for one in order.data.sources()] + ([order.data.eval] if isinstance(order.data.eval, str) else [])
    if os.environ.get(PUBLIC):
        for source in [*named, order.model.source]:
            if not _ours(source):
                raise OrderError(f"{source} lies outside the studio's folders.",
                                 "On a page that others can reach, use an upload, a sample or a Hub id.", "data.train")
    if not who.owns():
        for source in named:
            if not data.here(source):
                raise OrderError(f"{source} is not in this studio yet.", "Only the owner may fetch it.", "data.train")


def allow_voice(name: str) -> None:
    """Refuse to load what is no model of this studio, a base or a run's, where others can reach the page. Raises RunError."""
    if (os.environ.get(PUBLIC) or not who.owns()) and name != "base":
        live.exact(name.removeprefix("base:").partition("@")[0])


def _ours(source: str) -> bool:
    """Whether a source is no path at all, or one under home or of a sample."""
    path = Path(source).expanduser()
    names_file = path.exists() or path.is_absolute() or ".." in path.parts
    return not names_file or any(path.resolve().is_relative_to(room) for room in (home(), PROJECT / "studio" / "samples"))
