"""How the page is served: on this computer only, unless somebody asks for more, and then behind a login."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, NamedTuple

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from studio import bounded_http
from studio.errors import is_disk_full
from studio.ui import (
    assets,
    calls,
    connections,
    files,
    guard,
    host_names,
    login,
    questions,
    shares,
    space,
    theme,
    uploads,
    who,
)
from studio.ui.login_page import LoginPage

UPLOAD = os.environ.get("STUDIO_MAX_UPLOAD", "2gb")


class Reach(NamedTuple):
    """Who can reach the page.

    host, port: where it is served. share: through Gradio's tunnel. allow: further Host names, such as a proxy's.
    token: asks for a login on this computer too, with a token that the printed address carries.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    allow: tuple[str, ...] = ()
    password: str | None = None
    watch_password: str | None = None
    token: bool = False

    @property
    def public(self) -> bool:
        """Whether others than this computer's own users can reach it."""
        return self.share or bool(self.allow) or not host_names.is_local(self.host) or space.space() is not None

    @property
    def proxied(self) -> bool:
        """Whether people come through a trusted proxy: the tunnel, a Space's, or one that was named."""
        return self.share or space.space() is not None or bool(os.environ.get(connections.PROXIES))


def launch(page: gr.Blocks, reach: Reach, wait: bool = True) -> tuple[Any, str, str | None]:
    """Serve the page until the process ends, or in the background. Returns (app, local address, public address)."""
    login_page = _door(reach)
    with connections.proxies(space.space() is not None):
        app, local, public = page.launch(
            server_name=f"[{reach.host}]" if ":" in reach.host else reach.host,
            server_port=reach.port,
            share=reach.share,
            prevent_thread_lock=True,
            app_kwargs={
                "middleware": [_guard(reach, login_page)],
                "exception_handlers": {ClientDisconnect: _left, OSError: _refused_by_system},
                "routes": [
                    questions.route(),
                    shares.route(),
                    assets.route(),
                    *(login_page.routes() if login_page else []),
                ],
            },
            **options(),
        )
    page.server.config.http_protocol_class = bounded_http.protocol()
    local = local.replace("//[::]:", "//[::1]:")  # all IPv6 addresses; localhost may be IPv4's alone
    print(f"Fine-Tuning Studio is ready: {local}{_token(reach, login_page)}", flush=True)
    if public:
        print(f"Public address: {public}", flush=True)
    elif reach.share and space.space() is None:
        print(
            "No public address could be made: Gradio's tunnel was not reached. "
            "The page is served at the address above, behind its login.",
            flush=True,
        )
    if wait:
        threading.Thread(target=questions.warm, name="warm", daemon=True).start()
        page.block_thread()
    return app, local, public


def _left(request: Request, _: Exception) -> Response:
    """A client that has gone in the middle of its request, such as an upload that was stopped: nothing went wrong."""
    return Response(status_code=400)


async def _refused_by_system(request: Request, error: Exception) -> Response:
    """A disk that filled up while an upload came; any other error of the system is one of ours."""
    if is_disk_full(error):
        return await uploads.no_room(request)
    raise error


def options() -> dict[str, Any]:
    """The arguments of launch() that never change."""
    return {
        "theme": theme.theme(),
        "css_paths": assets.styles(),
        "head": assets.head(),
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "ssr_mode": False,
        "pwa": False,
        "quiet": True,
        "show_error": True,
        "max_file_size": UPLOAD,
        "state_session_capacity": calls.MAX_SESSIONS,
        "allowed_paths": [],  # the guard serves no file at all; blocking the home would block the uploads in its cache
    }


def _door(reach: Reach) -> LoginPage | None:
    """The login, where there must be one."""
    gate = _gate(reach)
    if gate is None:
        return None
    return LoginPage(gate, None if reach.password else gate.owner, framed=space.space() is not None)


def _gate(reach: Reach) -> login.Gate | None:
    """The passwords, where there must be a login; the owner's is printed when it had to be made up."""
    if not (reach.public or reach.password or reach.watch_password or reach.token):
        return None
    if reach.public:
        os.environ[files.PUBLIC] = "1"
    if space.space() is not None and not reach.password:
        return None  # the guard lets visitors watch; see _guard
    if space.space() is not None:
        os.environ[space.LOGIN] = "1"
    owner = reach.password or login.password()
    if not host_names.is_local(reach.host):
        print(f"The page is served on {reach.host}: everybody in your network can reach its login.", file=sys.stderr)
    if not reach.password:
        print(f"Log in as {who.OWNER} with the password {owner}", flush=True)
    if reach.watch_password:
        print(f"Who logs in as {who.WATCHER} can look on and change nothing.", flush=True)
    return login.Gate(owner, reach.watch_password, strong=not reach.password, proxied=reach.proxied)


def _token(reach: Reach, login_page: LoginPage | None) -> str:
    """The query of the printed address that logs its user in; none where the address is public."""
    return f"?token={login_page.token}" if login_page and login_page.token and not reach.public else ""


def _guard(reach: Reach, login_page: LoginPage | None) -> Middleware:
    hosting = space.space()
    known = host_names.HostNames(reach.host, reach.share, reach.allow)
    if hosting is not None and login_page is None:
        visits = space.Visits(hosting)
        return Middleware(guard.Guard, names=known, role=visits.role, visitors=True, ending=visits.end)
    return Middleware(guard.Guard, names=known, role=login_page.role if login_page else None, login_page=login_page)
