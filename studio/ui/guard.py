"""What a request may do: which Host names are answered, which posts are the page's own, which paths a role may use.

Gradio checks none of this: any name that points here is answered (DNS rebinding), a few of its routes take plain-text
and form posts from any web site, and who is logged in may call everything. This is the second wall; the first is at
each function (rights.py). What is not listed here is not served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from studio.ui import calls, uploads, who
from studio.ui.calls import Refusal
from studio.ui.concurrency import ConcurrencyLimit
from studio.ui.host_names import HostNames, of_space
from studio.ui.login_page import LoginPage
from studio.ui.who import NOBODY, OWNER, VISITOR, WATCHER, Requester

API = "/gradio_api"
ASK = "/studio/ask/"  # the page's reading questions (questions.py)
SHARED = "/studio/shared/"  # links to one run (shares.py), which carry their own right
STARTED = f"{API}/startup-events"  # gradio asks itself whether it is up; tells nothing
WATCHED = ("status", "inspect", "estimate")  # the jobs that change nothing
SHOWN = ("download", "doctors_report", "cast_votes")  # the reads that a watcher may ask and a visitor may not
VISITED = ("chat", "chat_ask", "chat_stop", "chat_load")  # and those a visitor of a Space may use as well
READ_PATHS = (
    "",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/robots.txt",
    "/manifest.json",
    *(API + path for path in ("/theme.css", "/info", "/startup-events", "/app_id", "/user", "/login_check")),
)
FOLDERS = ("/assets/", "/static/", "/studio/vendored/", f"{API}/heartbeat/")
# by the owner's gradio_client
READ = tuple(API + path for path in ("/queue/data", "/queue/status", "/upload_progress", "/openapi.json"))
POSTED = tuple(API + path for path in ("/queue/join", "/upload", "/reset", "/cancel"))
CALLED = tuple(f"{API}/{way}/" for way in ("run", "api", "call"))
LOGIN_PATHS = ("/login/huggingface", "/login/callback", "/logout")  # of a Space
# gradio's, not the page's; each writes or calls
UNUSED = ("/gradio_api/deep_link", "/gradio_api/component_server", "/gradio_api/process_recording")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors "
)


class Guard:
    """ASGI middleware.

    It answers 400 for a foreign Host, 401 and 403 beyond one's rights, 404 for what the page does not use, and 429 for
    too much at once.

    role: who sends a request, by its scope. visitors: who is not logged in may look and chat. login_page: the login, if
    there is one. ending: called when somebody leaves a login that is not ours.
    """

    def __init__(
        self,
        app: Any,
        names: HostNames,
        role: Callable[[dict[str, Any]], str] | None = None,
        visitors: bool = False,
        login_page: LoginPage | None = None,
        ending: Callable[[dict[str, Any]], None] | None = None,
    ):
        self.app = app
        self.names = names
        self.role = role
        self.visitors = visitors
        self.login_page = login_page
        self.guarded = login_page is not None or visitors
        self.ending = ending
        self.concurrency = ConcurrencyLimit()
        self.policy = POLICY + ("'self' https://huggingface.co" if of_space() else "'self'")

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        role = self.role(scope) if self.role else OWNER
        role = VISITOR if self.visitors and role == WATCHER else role
        scope[who.REFUSAL] = {}
        send = self._with_headers(send, self.may(scope, role), scope[who.REFUSAL])
        refusal = self.refusal(scope, role)
        if refusal:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
            return
        scope["headers"] = [header for header in scope["headers"] if self._is_believed(*header)]
        address = (scope.get("client") or ("",))[0]
        scope[who.KEY] = Requester(role, address, self.guarded)
        who.role.set(role)
        who.address.set(address)
        with self.concurrency.within(address, role, scope["path"]) as room:
            if room:
                await self._pass(scope, receive, send, role)
            else:
                await PlainTextResponse("Too much at once. Try again in a moment.", 429, {"Retry-After": "2"})(
                    scope, receive, send
                )

    async def _pass(self, scope: dict[str, Any], receive: Any, send: Any, role: str) -> None:
        """Hand the request to the login page or the app; refuse it where its body asks for more than the role may."""
        response = self.login_page.response_for(Request(scope), role) if self.login_page else None
        if response is None and scope["method"] == "POST" and scope["path"].rstrip("/") == f"{API}/upload":
            response = await uploads.refuse_without_room(Request(scope, receive))
        if response is not None:
            await response(scope, receive, send)
            return
        if self.ending and scope["path"].rstrip("/") == "/logout":
            self.ending(scope)
        if scope["method"] == "POST" and scope["path"].startswith((*CALLED, f"{API}/queue/")):
            receive, refusal = await calls.take(scope, receive, role)
            if refusal:
                await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_believed(self, name: bytes, value: bytes) -> bool:
        """False for a proxy's header that names a host not served here: gradio writes its address into the page."""
        if name == b"x-forwarded-host":
            return all(host.strip() in self.names for host in value.decode("latin-1").split(","))
        return name != b"x-gradio-server"

    def refusal(self, scope: dict[str, Any], role: str = OWNER) -> Refusal | None:
        """(status, sentence) for what is not let through."""
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        if len(hosts) != 1 or hosts[0] not in self.names:
            return 400, "This name is not served here. Start the studio with --allow-host NAME to serve it."
        if scope["type"] == "websocket" or scope["path"].rstrip("/") in UNUSED:
            return 404, "Not found."
        return self._foreign(scope, hosts[0]) or self._beyond(scope["method"], scope["path"].rstrip("/"), role)

    def _foreign(self, scope: dict[str, Any], host: str) -> Refusal | None:
        """403 for what another site's page sends: any post, and any read that is not a link which a person opened."""
        headers, reads = dict(scope["headers"]), scope["method"] in ("GET", "HEAD")
        own = headers.get(b"sec-fetch-site", b"none") in (b"same-origin", b"none")
        opened = reads and headers.get(b"sec-fetch-mode") == b"navigate" and scope["path"].rstrip("/") != "/logout"
        origin = headers.get(b"origin")
        # a browser names the origin of a post, and of a read whose answer a script is to see, which gradio would allow
        if not (own or opened) or (origin is not None and not self._own(origin.decode("latin-1"), host)):
            return 403, "Posts from other sites are refused."
        return None

    def _own(self, origin: str, host: str) -> bool:
        try:
            there = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return bool(there) and (there == host.lower() or there in of_space())

    def _beyond(self, method: str, path: str, role: str) -> Refusal | None:
        """401, 403 or 404 for a path that the role may not use or that is not served; None where it may."""
        reads = method in ("GET", "HEAD")
        if self.login_page and path == "/login":
            return None
        if reads and path.startswith(SHARED):
            return None
        if role == NOBODY:
            return None if reads and path in ("", STARTED) else (401, "Log in first.")
        if reads and (path in READ_PATHS or path.startswith(FOLDERS) or (path in LOGIN_PATHS and of_space())):
            return None
        if method == "POST" and (path.startswith(ASK) or (self.login_page and path == "/logout")):
            return None
        if role == OWNER:
            known = (
                path in READ or path.startswith(CALLED)
                if reads
                else method == "POST" and (path in POSTED or path.startswith(CALLED))
            )
            return None if known else (404, "Not found.")
        if method == "POST" and any(
            path == f"{API}/{way}/{job}" for way in ("run", "api") for job in self._allowed(role)
        ):
            return None
        if path == "/login":
            return 404, "There is no login here."
        return (
            (404, "Not found.")
            if reads and path not in READ and not path.startswith(CALLED)
            else (403, "Only the owner may do this here.")
        )

    def _allowed(self, role: str) -> tuple[str, ...]:
        return WATCHED + (VISITED if role == VISITOR else ())

    def may(self, scope: dict[str, Any], role: str = OWNER) -> str | None:
        """The jobs and guarded reads that a role may call, as a header of every answer; "*" for all."""
        if role == NOBODY or not scope["path"].startswith(ASK):
            return None
        if role == OWNER:
            return "*"
        return " ".join(self._allowed(role) + (SHOWN if role == WATCHER else ()))

    def _with_headers(self, send: Any, may: str | None, refusal: dict[str, int]) -> Any:
        headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
            (b"content-security-policy", self.policy.encode()),
        ]
        headers += [(b"x-studio-may", may.encode())] if may else []
        headers += [(b"x-studio-login", b"1")] if may and self.login_page else []

        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 500:  # gradio's for every error of a job
                    message["status"] = refusal.get("status", 500)
                message["headers"] = [*message.get("headers", []), *headers]
            await send(message)

        return sending
