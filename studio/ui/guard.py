"""Who may do what with the page: which Host names are answered, which posts are the page's own, who is logged in.

Gradio checks none of the first two: any name that points here is answered (DNS rebinding), and a few of its routes take plain-text
and form posts from any web site. Its login has no limit of attempts. This file closes the three.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

from studio.config import RunConfig
from studio.errors import OrderError
from studio.home import PROJECT, home

LOCAL = ("localhost", "127.0.0.1", "::1")
SHARED = re.compile(r"[a-z0-9-]+\.gradio\.live")
TRIES, WINDOW = 8, 60.0  # wrong passwords within so many seconds lock the login for as long
OWNER, WATCHER = "owner", "watch"
WATCHED = ("status", "inspect", "estimate")  # the jobs that change nothing
VISITED = ("chat", "chat_ask", "chat_stop", "chat_load")  # and those a visitor of a Space may use as well
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
          "font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self'; object-src 'none'; base-uri 'self'")
PUBLIC = "STUDIO_PUBLIC"  # set in the environment of a page that others can reach


def is_local(host: str) -> bool:
    """Whether an address to serve on is this computer's own."""
    return host in LOCAL or host.startswith("127.")


class Names:
    """The Host names that are answered: this computer's, the one served on, the Space's, the tunnel's, and extra ones.

    Addresses made of numbers pass when the page is served to a network: a rebinding attack needs a name.
    """

    def __init__(self, host: str = "127.0.0.1", share: bool = False, extra: Iterable[str] = ()):
        self.share, self.network = share, not is_local(host)
        self.names = {*LOCAL, host.lower(), *(name.lower() for name in extra)}
        if os.environ.get("SPACE_HOST"):
            self.names.add(os.environ["SPACE_HOST"].lower())

    def __contains__(self, authority: str) -> bool:
        name = hostname(authority)
        if name in self.names or (self.share and SHARED.fullmatch(name)):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.network


def hostname(authority: str) -> str:
    """The name in a Host header or an origin, without port, in lower case; "" where there is none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


class Guard:
    """ASGI middleware: 400 for a foreign Host, 403 for a post of another site or beyond one's rights. Adds headers that forbid foreign content."""

    def __init__(self, app: Any, names: Names, role: Callable[[dict[str, Any]], str] | None = None, visitors: bool = False):
        self.app, self.names, self.role, self.visitors = app, names, role, visitors

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
            return
        await self.app(scope, receive, _with_headers(send, self.may(scope)))

    def refusal(self, scope: dict[str, Any]) -> tuple[int, str] | None:
        """(status, sentence) for what is not let through."""
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        if len(hosts) != 1 or hosts[0] not in self.names:
            return 400, "This name is not served here. Start the studio with --allow-host NAME to serve it."
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "Posts from other sites are refused."
        origin = headers.get("origin")
        if origin is not None and not self._own(origin, hosts[0]):
            return 403, "Posts from other sites are refused."
        if self.role and self.role(scope) != OWNER and not self._watching(scope):
            return 403, "Only the owner may do this here."
        return None

    def _own(self, origin: str, host: str) -> bool:
        try:
            there = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return bool(there) and (there == host.lower() or there == os.environ.get("SPACE_HOST", "").lower())

    def _watching(self, scope: dict[str, Any]) -> bool:
        """Whether a post only looks: reading functions, and jobs that change nothing."""
        path = scope["path"].rstrip("/").removeprefix("/gradio_api")
        if path in ("/component_server", "/login", "/logout"):
            return True
        return any(path == f"/{way}/{job}" for way in ("run", "api") for job in self._allowed())

    def _allowed(self) -> tuple[str, ...]:
        return WATCHED + (VISITED if self.visitors else ())

    def may(self, scope: dict[str, Any]) -> str | None:
        """The jobs that somebody may call, for the page to grey the others; "*" for all. Said with every answer to a reading question, and None elsewhere."""
        if not scope["path"].rstrip("/").endswith("/component_server"):
            return None
        if self.role is None:
            return "*"
        return "*" if self.role(scope) == OWNER else " ".join(self._allowed())


def _with_headers(send: Any, may: str | None) -> Any:
    said = [(b"x-studio-may", may.encode())] if may else []

    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"),
                                  (b"content-security-policy", POLICY.encode()), *said]
        await send(message)
    return sending


class Gate:
    """The login: an owner's password and, if wanted, a second one that only lets people watch. Constant time, few tries."""

    def __init__(self, owner: str, watcher: str | None = None, clock: Callable[[], float] = time.monotonic):
        self._passwords = {OWNER: owner, WATCHER: watcher or ""}
        self._clock, self._lock, self._wrong, self._until = clock, threading.Lock(), [], 0.0

    def __call__(self, user: str, password: str) -> bool:
        """Whether the pair is right. While the login is locked, nothing is."""
        with self._lock:
            now = self._clock()
            known = self._passwords.get(user, "")
            right = hmac.compare_digest(known.encode() or secrets.token_bytes(16), password.encode())
            if now < self._until:
                return False
            if right:
                self._wrong.clear()
                return True
            self._wrong = [*(at for at in self._wrong if now - at < WINDOW), now]
            if len(self._wrong) >= TRIES:
                self._until, self._wrong = now + WINDOW, []
            return False


def role_of(scope: dict[str, Any]) -> str:
    """OWNER or WATCHER, by the login cookie of a request; "" for nobody."""
    app = scope.get("app")
    cookies: SimpleCookie = SimpleCookie()
    for key, value in scope["headers"]:
        if key == b"cookie":
            try:
                cookies.load(value.decode("latin-1"))
            except CookieError:
                continue
    for name in (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"):
        if name in cookies and cookies[name].value in app.tokens:
            return app.tokens[cookies[name].value]
    return OWNER if scope["path"].rstrip("/").endswith("/login") else ""


def password() -> str:
    """A password to be printed once: 96 random bits."""
    return secrets.token_urlsafe(12)


def allow(order: RunConfig) -> None:
    """Refuse an order that names files outside the studio's own folders, where others can reach the page. Raises OrderError."""
    if not os.environ.get(PUBLIC):
        return
    named = [one.source for one in order.data.sources()] + ([order.data.eval] if isinstance(order.data.eval, str) else []) + [order.model.source]
    rooms = (home(), PROJECT / "studio" / "samples")
    for source in named:
        path = Path(source).expanduser()
        names_file = path.exists() or path.is_absolute() or ".." in path.parts
        if names_file and not any(path.resolve().is_relative_to(room) for room in rooms):
            raise OrderError(f"{source} lies outside the studio's folders.",
                             "On a page that others can reach, use an upload, a sample or a Hub id.", "data.train")
