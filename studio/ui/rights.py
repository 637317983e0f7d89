"""Who may call what. A job or a read declares its roles where it is defined, and they are checked at every call.

    @rights.job(WATCHER, VISITOR)          # these besides the owner; nobody else
    def status(name: str) -> dict: ...

Gradio reaches a function by its name, by its number in a body sent to another name's address, and through its queue,
which runs it outside of the request. All of them hand over the request, and that says who asks (who.py). A function
without roles cannot be declared.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from functools import cache, partial, wraps
from types import ModuleType
from typing import Any

import anyio
import anyio.to_thread
import gradio as gr
from pydantic import TypeAdapter, ValidationError

from studio.errors import StudioError, as_studio_error, internal_error, wrong_setting
from studio.ui import audit, who
from studio.ui.who import NOBODY, OWNER

ROLES = "__studio_roles__"
CHANGES = "__studio_changes__"
WAITS = "__studio_waits__"
READS = "__studio_reads__"
REFUSED = "Only the owner may do this here.\nLog in as the owner."
Function = Callable[..., Any]


def job(*roles: str, changes: bool = True, waits: bool = False) -> Callable[[Function], Function]:
    """Declare who besides the owner may call a job.

    changes: whether it changes something, so that it is written into the audit log.
    waits: whether it may take long, for a model, a service elsewhere or a large file. Such jobs share a few threads of
    their own, so that watching, logging in and stopping a run never wait for them.
    """
    if NOBODY in roles:
        raise ValueError("a job cannot be open to those who are not logged in")

    def declared(function: Function) -> Function:
        setattr(function, ROLES, frozenset({OWNER, *roles}))
        setattr(function, CHANGES, changes)
        setattr(function, WAITS, waits)
        setattr(function, READS, False)
        return function

    return declared


def read(*roles: str, waits: bool = False) -> Callable[[Function], Function]:
    """Declare who besides the owner may ask a reading question. waits: as of a job."""

    def declared(function: Function) -> Function:
        setattr(job(*roles, changes=False, waits=waits)(function), READS, True)
        return function

    return declared


def declared_in(*modules: ModuleType, reads: bool) -> list[Function]:
    """The jobs, or the reading questions, that modules declare, in their order."""
    return [
        function
        for module in modules
        for function in vars(module).values()
        if getattr(function, READS, None) is reads and function.__module__ == module.__name__
    ]


# threads of jobs that may wait, of reads that may wait, and of other reads
JOB_LIMITER = anyio.CapacityLimiter(16)
SLOW_READ_LIMITER = anyio.CapacityLimiter(8)
READ_LIMITER = anyio.CapacityLimiter(16)


def limiter_for(function: Function) -> anyio.CapacityLimiter:
    """The threads that a reading question is answered in."""
    return SLOW_READ_LIMITER if getattr(function, WAITS, False) else READ_LIMITER


def roles_of(function: Function) -> frozenset[str]:
    """The roles that may call a function; none where it declares none."""
    return getattr(function, ROLES, frozenset())


def allows(function: Function, role: str) -> bool:
    """Whether a role may call a function. Not where the function declares nothing, and never without a role."""
    return role != NOBODY and role in roles_of(function)


def register(function: Function, name: str = "") -> None:
    """Register a job with gradio under a name. Inside a gr.Blocks. Raises TypeError where it declares no roles."""
    gr.api(with_role_check(function, name or function.__name__), api_name=name or function.__name__, queue=False)


def with_role_check(function: Function, name: str) -> Function:
    """The job behind the check of its roles. Errors become gr.Error: the message, and on a second line the hint."""
    if not roles_of(function):
        raise TypeError(f"The job {name} does not say who may call it: put @rights.job(…) on it.")

    def checked(request: gr.Request, *args: Any) -> Any:
        requester = who.requester_of(request)
        if not allows(function, requester.role):
            audit.write(requester, name, args, "refused")
            who.refuse_with(request, 403)
            raise gr.Error(REFUSED, print_exception=False)
        with who.acting_as(requester):
            return _call_and_audit(function, name, requester, args, request)

    async def in_thread(request: gr.Request, *args: Any) -> Any:
        return await anyio.to_thread.run_sync(partial(checked, request, *args), limiter=JOB_LIMITER)

    checked_job = wraps(function)(in_thread if getattr(function, WAITS) else checked)
    signature = inspect.signature(function)
    first = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    parameters = [first, *signature.parameters.values()]
    checked_job.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    checked_job.__annotations__ = {"request": gr.Request, **inspect.get_annotations(function, eval_str=True)}
    return checked_job


def _call_and_audit(
    function: Function, name: str, requester: who.Requester, args: tuple[Any, ...], request: gr.Request
) -> Any:
    """Call the job, and write down how it went where it changes something."""
    outcome = "failed"
    try:
        _check_types(function, args)
        answer = function(*args)
        outcome = "done"
        return answer
    except Exception as error:
        explained = as_studio_error(error)
        if explained is None:
            traceback.print_exc()
            explained = internal_error(error)
        who.refuse_with(request, _status(error, explained))
        raise gr.Error(f"{explained.message}\n{explained.hint}".rstrip(), print_exception=False) from error
    finally:
        if getattr(function, CHANGES):
            audit.write(requester, name, args, outcome)


def _status(error: Exception, explained: StudioError) -> int:
    """400 for what is refused, 507 for a full disk, 503 for what else the system refused, 500 for a bug."""
    if explained.reason == "disk":
        return 507
    if isinstance(error, StudioError):
        return 400
    return 500 if explained.reason == "bug" else 503


def _check_types(function: Function, args: tuple[Any, ...]) -> None:
    """Raise OrderError for a value that is not of the type that the job declares: raw calls may hold anything."""
    for (name, adapter), value in zip(_adapters(function), args, strict=False):
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise wrong_setting(error, name, "Ask as the page does.") from error


@cache
def _adapters(function: Function) -> list[tuple[str, TypeAdapter[Any]]]:
    annotations = inspect.get_annotations(function, eval_str=True)
    return [(name, TypeAdapter(annotations[name])) for name in inspect.signature(function).parameters]
