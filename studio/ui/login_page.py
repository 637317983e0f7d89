"""Where one logs in and out: the login page, the address that carries the token, the session's cookie.

GET  /login          the page; GET / shows it too while nobody is logged in
POST /login          a form with username and password, as gradio_client sends it
GET  /?token=TOKEN   the address that the studio prints
POST /logout         ends the session here, not only in the browser
"""

from __future__ import annotations

import asyncio
import hmac
import html
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from studio.ui import assets, audit, who, words
from studio.ui.login import Gate
from studio.ui.sessions import LONGEST, Devices, Sessions, cookies
from studio.ui.who import NOBODY, OWNER, Requester

SLOWEST, MAX_BYTES = 10.0, 4096  # seconds and bytes of a form
WRONG, LATER = "That is not right.", "Too many wrong tries. Try again in {seconds} seconds."


class LoginPage:
    """The login of one page.

    token: what the printed address carries, the same as a generated owner's password; None without one.
    framed: whether the page stands in a frame of another site, as a Space's does.
    """

    def __init__(self, gate: Gate, token: str | None = None, framed: bool = False):
        self.gate, self.token, self.framed = gate, token, framed
        self.sessions, self.devices = Sessions(), Devices()

    def role(self, scope: dict[str, Any]) -> str:
        """The role of the session whose cookie a request carries; NOBODY without one."""
        return self.sessions.role(cookies(scope).get(_name(scope, "session"), "")) or NOBODY

    def routes(self) -> list[Route]:
        return [
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/login/", self._login, methods=["GET", "POST"]),
            Route("/logout", self._logout, methods=["POST"]),
        ]

    def response_for(self, request: Request, role: str) -> Response | None:
        """The answer to a look at the page that carries a token, or comes from nobody; None for every other request."""
        if request.method not in ("GET", "HEAD") or request.url.path.rstrip("/"):
            return None
        given = request.query_params.get("token")
        if given is not None and self.token and hmac.compare_digest(given.encode(), self.token.encode()):
            query = parse_qsl(request.url.query, keep_blank_values=True)
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            return self._welcome(request, OWNER, RedirectResponse(f"./?{rest}" if rest else "./", 303))
        if role != NOBODY:
            return None
        return self._page(request, WRONG if given else "")

    # -- the routes

    async def _login(self, request: Request) -> Response:
        """The page, or what a form came to. In a browser without scripts too."""
        if request.method == "GET":
            return self._page(request)
        fields = await _form(request)
        user, password = fields.get("username", "").strip(), fields.get("password", "")
        who.peer.set(request.scope.get("state", {}).get("peer", ""))
        who.device.set(self.devices.known(cookies(request.scope).get(_name(request.scope, "device"), "")))
        requester = Requester(user if user in (OWNER, who.WATCHER) else NOBODY, who.address.get())
        plain = "text/html" in request.headers.get("accept", "")
        if self.gate(user, password):
            audit.write(requester, "login")
            return self._welcome(
                request, user, RedirectResponse("./", 303) if plain else JSONResponse({"success": True})
            )
        audit.write(requester, "login", outcome="refused")
        seconds = self.gate.locked()
        status, text = (429, LATER) if seconds else (400, WRONG)
        headers = {"Retry-After": str(int(seconds) + 1)} if seconds else {}
        if plain:
            return self._page(request, text, status, headers, seconds=int(seconds) + 1)
        return JSONResponse({"detail": words.say(text, seconds=int(seconds) + 1)}, status, headers)

    async def _logout(self, request: Request) -> Response:
        """End the session; its cookie opens nothing any more, wherever it was copied to."""
        self.sessions.end(cookies(request.scope).get(_name(request.scope, "session"), ""))
        audit.write(Requester(who.role.get(), who.address.get()), "logout")
        answer: Response = (
            RedirectResponse("./", 303)
            if "text/html" in request.headers.get("accept", "")
            else JSONResponse({"success": True})
        )
        answer.delete_cookie(_name(request.scope, "session"), **self._attributes(request))
        return answer

    # -- cookies and the page

    def _welcome(self, request: Request, role: str, answer: Response) -> Response:
        """Begin a session, and know this browser again."""
        for kind, value in (("device", self.devices.mark()), ("session", self.sessions.begin(role))):
            answer.set_cookie(
                _name(request.scope, kind),
                value,
                max_age=int(LONGEST if kind == "session" else 10 * LONGEST),
                **self._attributes(request),
            )
        if self.framed:  # Starlette knows the word from Python 3.14 on
            answer.raw_headers[:] = [
                (key, value + b"; Partitioned" if key == b"set-cookie" else value) for key, value in answer.raw_headers
            ]
        answer.headers["cache-control"] = "no-store"
        return answer

    def _attributes(self, request: Request) -> dict[str, Any]:
        """The cookie's attributes: sent by this site's pages alone, or inside another site's frame on a Space."""
        secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        if self.framed and secure:
            return {"path": "/", "httponly": True, "secure": True, "samesite": "none"}
        return {"path": "/", "httponly": True, "secure": secure, "samesite": "lax"}

    def _page(
        self,
        request: Request,
        message: str = "",
        status: int = 200,
        headers: dict[str, str] | None = None,
        **values: Any,
    ) -> Response:
        """The login page in the language of the browser or `?lang`; gradio_client reads in it that there is a login."""
        lang = words.language(request.query_params.get("lang") or request.headers.get("accept-language"))

        def translated(text: str) -> str:
            return html.escape(words.say(text, lang, **values))

        other = "en" if lang == "zh" else "zh"
        filled = words.SLOT.sub(
            lambda slot: {
                "said": f'<p role="alert">{translated(message)}</p>' if message else "",
                "lang": {"zh": "zh-CN"}.get(lang, lang),
                "other": other,
                "tongue": words.LANGUAGES[other],
            }.get(slot[1], slot[0]),
            assets.read("login.html"),
        )
        filled = assets.TRANSLATED.sub(
            lambda found: found[0].replace(f">{found[1]}<", f">{translated(found[1])}<"), filled
        )
        return HTMLResponse(filled, status, {"cache-control": "no-store", **(headers or {})})


def _name(scope: dict[str, Any], kind: str) -> str:
    """A cookie's name. Two studios on one computer have one host; their ports keep them apart."""
    host = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
    return f"studio-{kind}-{host.rpartition(':')[2] if host.rpartition(':')[2].isdigit() else 'web'}"


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, urlencoded or as parts; none where it is too long or too slow."""
    if int(request.headers.get("content-length", "0") or 0) > MAX_BYTES or "chunked" in request.headers.get(
        "transfer-encoding", ""
    ):
        return {}
    try:
        async with asyncio.timeout(SLOWEST):
            form = await request.form(max_files=0, max_fields=8)
            return {key: value for key, value in form.items() if isinstance(value, str)}
    except (TimeoutError, HTTPException, MultiPartException, UnicodeDecodeError):
        return {}
