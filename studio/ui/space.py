"""The Hugging Face Space the page runs in: its hardware, ZeroGPU, whether its disk lasts, and who owns it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from studio.errors import OrderError
from studio.runs import backup
from studio.ui.who import OWNER, WATCHER

LOGIN = "STUDIO_LOGIN"  # set in the environment of a page that asks for a password, which itself does not stand there
WRITES = ("admin", "write")  # roles in an organisation that may change its Spaces
LASTING = Path("/data")  # where a Space's storage bucket is mounted by convention
MONTH = 30 * 24 * 3600.0  # seconds


class Space(NamedTuple):
    """id: owner/name. creator: the user id of who made it, which an organisation's Space has too.

    zero: on ZeroGPU. lasts: whether home survives a restart. login: whether visitors can sign in with Hugging Face."""

    id: str
    host: str
    owner: str
    hardware: str
    zero: bool
    lasts: bool
    login: bool
    creator: str = ""

    @property
    def duplicate(self) -> str:
        """The address that makes a copy of it."""
        return f"https://huggingface.co/spaces/{self.id}?duplicate=true"


def space() -> Space | None:
    """The Space this page runs in, read from its environment; None anywhere else."""
    name = os.environ.get("SPACE_ID")
    if not name:
        return None
    return Space(
        id=name,
        host=os.environ.get("SPACE_HOST", ""),
        owner=os.environ.get("SPACE_AUTHOR_NAME") or name.partition("/")[0],
        hardware=os.environ.get("ACCELERATOR", "none"),
        zero=os.environ.get("SPACES_ZERO_GPU", "").lower() in ("true", "1"),
        lasts=LASTING.is_dir() and os.access(LASTING, os.W_OK),
        login=bool(os.environ.get("OAUTH_CLIENT_ID")) and find_spec("authlib") is not None,
        creator=os.environ.get("SPACE_CREATOR_USER_ID", ""),
    )


def blocked_reason(hosting: Space | None) -> str | None:
    """Why nothing can be trained here, in one sentence; None where it can."""
    if hosting and hosting.zero:
        return (
            "This Space runs on ZeroGPU, which lends a GPU for a minute at a time: a training cannot run here. "
            "Duplicate the Space to a CPU or GPU of your own; checking data and forecasts work here."
        )
    if hosting and not hosting.login and not any(map(os.environ.get, ("STUDIO_PASSWORD", LOGIN, "STUDIO_OPEN"))):
        return (
            "Nobody can log in to this Space yet: put hf_oauth: true into its README, or set a secret STUDIO_PASSWORD. "
            "In a private Space the variable STUDIO_OPEN=1 lets everybody who sees it train."
        )
    return None


def refuse_training() -> None:
    """Raise OrderError where nothing can be trained here."""
    if reason := blocked_reason(space()):
        raise OrderError("Nothing can be trained here.", reason, "device")


def note(hosting: Space | None) -> str | None:
    """What somebody who trains here should know, in a sentence or two."""
    if hosting is None or hosting.zero:
        return None
    if not hosting.lasts and backup.repository():
        return (
            "Runs are copied to a private repository of the Hub every few minutes, and fetched again after a restart."
        )
    if not hosting.lasts:
        return (
            "The disk of this Space is emptied when it restarts or sleeps. Attach a storage bucket at /data, "
            "or download the result as soon as the run has finished."
        )
    return "Runs are kept in the storage bucket at /data and survive a restart of the Space."


class Visits:
    """Who visits a Space, by the Hugging Face login in a signed cookie, and which of those logins were ended here."""

    def __init__(self, hosting: Space):
        self._space, self._ended = hosting, dict[str, float]()  # hash of what the Hub gave -> when it ends by itself

    def role(self, scope: dict[str, Any]) -> str:
        return WATCHER if _login_hash(scope) in self._ended else role_of(scope, self._space)

    def end(self, scope: dict[str, Any]) -> None:
        """Log out: gradio takes the cookie from the browser, this ends what stands in it."""
        oauth, now = (scope.get("session") or {}).get("oauth_info") or {}, time.time()
        self._ended = {mark: until for mark, until in self._ended.items() if until > now}
        if oauth:
            self._ended[_login_hash(scope)] = oauth.get("expires_at", now + MONTH)


def _login_hash(scope: dict[str, Any]) -> str:
    oauth = (scope.get("session") or {}).get("oauth_info") or {}
    return hashlib.sha256(json.dumps(oauth, sort_keys=True, default=str).encode()).hexdigest() if oauth else ""


def role_of(scope: dict[str, Any], hosting: Space) -> str:
    """The owner's role by the Hugging Face login, else a visitor's; without a login STUDIO_OPEN decides."""
    if not hosting.login:
        return OWNER if os.environ.get("STUDIO_OPEN") else WATCHER
    oauth = (scope.get("session") or {}).get("oauth_info") or {}
    fresh = oauth.get("expires_at", float("inf")) > time.time()  # afterwards gradio counts it as logged out too
    return OWNER if fresh and _owns(oauth.get("userinfo") or {}, hosting) else WATCHER


def _owns(person: dict[str, Any], hosting: Space) -> bool:
    """Whether somebody is the Space's owner, its creator, or may write in its organisation. person: OpenID claims."""
    if person.get("preferred_username") == hosting.owner or (hosting.creator and person.get("sub") == hosting.creator):
        return True
    return any(
        hosting.owner == org.get("preferred_username", org.get("name")) and org.get("roleInOrg", "write") in WRITES
        for org in person.get("orgs") or []
    )
