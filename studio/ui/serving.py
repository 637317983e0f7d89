"""How the page is served: on this computer only, unless somebody asks for more, and then behind a login."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, NamedTuple

import gradio as gr
from starlette.middleware import Middleware

from studio.home import home
from studio.ui import assets, guard, login, names, questions, space, theme, who

UPLOAD = os.environ.get("STUDIO_MAX_UPLOAD", "2gb")


class Reach(NamedTuple):
    """Who can reach the page. host, port: where it is served; share: through Gradio's tunnel; allow: further Host names."""

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    allow: tuple[str, ...] = ()
    password: str | None = None
    watch_password: str | None = None

    @property
    def public(self) -> bool:
        """Whether others than this computer's own users can reach it."""
        return self.share or not names.is_local(self.host) or space.space() is not None


def launch(page: gr.Blocks, reach: Reach, wait: bool = True) -> tuple[Any, str, str | None]:
    """Serve the page until the process ends (wait) or in the background. Returns (app, local address, public address)."""
    gate = _gate(reach)
    app, local, public = page.launch(server_name=reach.host, server_port=reach.port, share=reach.share, prevent_thread_lock=True, auth=gate,
                                     app_kwargs={"middleware": [_guard(reach, gate)], "routes": [questions.route()]}, **options())
    print(f"Fine-Tuning Studio is ready: {local}", flush=True)
    if public:
        print(f"Public address: {public}", flush=True)
    elif reach.share and space.space() is None:
        print("No public address could be made: Gradio's tunnel was not reached. The page is served at the address above, behind its login.", flush=True)
    if wait:
        threading.Thread(target=questions.warm, name="warm", daemon=True).start()
        page.block_thread()
    return app, local, public


def options() -> dict[str, Any]:
    """What launch() is told, whoever looks on."""
    return {"theme": theme.theme(), "css_paths": assets.styles(), "head": assets.head(), "footer_links": [], "run_history": False, "enable_monitoring": False,
            "mcp_server": False, "ssr_mode": False, "pwa": False, "quiet": True, "max_file_size": UPLOAD, "allowed_paths": [],
            "blocked_paths": [str(home())]}


def _gate(reach: Reach) -> login.Gate | None:
    """The login, where there must be one; its password is printed when it had to be made up."""
    if not reach.public and not reach.password:
        return None
    if reach.public:
        os.environ[guard.PUBLIC] = "1"
    if space.space() is not None and not reach.password:
        return None  # the guard lets visitors watch; see _guard
    owner = reach.password or login.password()
    if not names.is_local(reach.host):
        print(f"The page is served on {reach.host}: everybody in your network can reach its login.", file=sys.stderr)
    if not reach.password:
        print(f"Log in as {who.OWNER} with the password {owner}", flush=True)
    if reach.watch_password:
        print(f"Who logs in as {who.WATCHER} can look on and change nothing.", flush=True)
    return login.Gate(owner, reach.watch_password)


def _guard(reach: Reach, gate: login.Gate | None) -> Middleware:
    here = space.space()
    known = names.Names(reach.host, reach.share, reach.allow)
    if here is not None and gate is None:
        return Middleware(guard.Guard, names=known, role=lambda scope: space.role_of(scope, here), visitors=True)
    return Middleware(guard.Guard, names=known, role=login.role_of if gate else None)
