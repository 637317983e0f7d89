"""The body of a call of a job: one JSON object with as many values as the job takes, which names a job that there is.

Gradio answers what is wrong with one by a bare 500, and keeps a session for every text that a call names as its own.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

from starlette.requests import Request

from studio import request_body
from studio.request_body import BodyError
from studio.ui.who import OWNER

MAX_BYTES = 4 << 20  # bytes of a call; an upload has a limit of its own
MAX_SESSION_CHARS = 64  # gradio's own pages make ten
MAX_SESSIONS = 256  # that gradio keeps, of some 130 kB each; the page has no values in them
Refusal = tuple[int, str]


async def take(scope: dict[str, Any], receive: Any, role: str) -> tuple[Any, Refusal | None]:
    """A receive that hands out the call again, and (status, sentence) where it is refused."""
    try:
        body = await request_body.gather(Request(scope, receive).stream(), MAX_BYTES)
    except BodyError as error:
        return receive, (error.status, f"The call cannot be read: {error}.")
    return _replay(body, receive), _refusal(scope, body, role)


def _refusal(scope: dict[str, Any], body: bytes, role: str) -> Refusal | None:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return 400, "Ask in JSON."
    if not isinstance(asked, dict):
        return 400, "Ask with one JSON object."
    by_name = "/call/v2/" in scope["path"]  # its body is the values by their names, and nothing else
    number = None if by_name else asked.get("fn_index")
    if number is not None and role != OWNER:  # gradio prefers it to the name in the path
        return 403, "Only the owner may do this here."
    session = None if by_name else asked.get("session_hash")
    if session is not None and not (isinstance(session, str) and len(session) <= MAX_SESSION_CHARS):
        return 400, f"session_hash should be text, at most {MAX_SESSION_CHARS} characters."
    job = _job(scope, number)
    if job is None:
        return 404, "There is no job of this name or number."
    return _wrong_names(job, asked) if by_name else _wrong_count(job, asked.get("data"))


def _job(scope: dict[str, Any], number: object) -> Any:
    """The function of gradio's that a call names; None where there is none."""
    known = scope["app"].get_blocks().fns
    if number is not None:
        return known.get(number) if isinstance(number, int) else None
    name = scope["path"].rstrip("/").rpartition("/")[2]
    return next((one for one in known.values() if one.api_name == name), None)


def _wrong_names(job: Any, given: dict[str, Any]) -> Refusal | None:
    takes = _takes(job)
    needed = {name for name, one in takes.items() if one.default is inspect.Parameter.empty}
    return None if needed <= given.keys() <= takes.keys() else (400, f"{job.api_name} takes {', '.join(takes)}.")


def _wrong_count(job: Any, given: object) -> Refusal | None:
    if isinstance(given, list) and len(given) == len(job.inputs):
        return None
    names = f" ({', '.join(_takes(job))})" if job.inputs else ""
    return 400, f'{job.api_name} takes "data", a list of {len(job.inputs)} values{names}.'


def _takes(job: Any) -> dict[str, inspect.Parameter]:
    return {name: one for name, one in inspect.signature(job.fn).parameters.items() if name != "request"}


def _replay(body: bytes, receive: Any) -> Any:
    """A receive that hands out a body that was read already."""
    given = False

    async def receiving() -> dict[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
