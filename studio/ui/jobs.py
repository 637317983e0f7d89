"""The jobs that can be called by name, by the page and by gradio_client alike: import, inspect, estimate, start, status, stop, chat.

Every argument is checked here, whatever the page checked before. A refusal comes as one sentence and one hint.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from studio import config, queue, run
from studio.errors import StudioError
from studio.ui import words


def build() -> None:
    """Declare the jobs. Inside a gr.Blocks."""
    for job in (start, status, stop):
        gr.api(refusing(job), api_name=job.__name__, queue=False)


def refusing(job: Callable[..., Any]) -> Callable[..., Any]:
    """The job with its StudioErrors as gr.Error: the message, and on a second line the hint."""
    @wraps(job)
    def careful(*args: Any, **named: Any) -> Any:
        try:
            return job(*args, **named)
        except StudioError as error:
            said = words.explain(error, "en")
            raise gr.Error(f"{said['message']}\n{said['hint']}".rstrip(), print_exception=False) from error
    return careful


def start(order: str) -> dict[str, Any]:
    """Queue a run from an order in YAML; returns {run, state}."""
    wanted = config.parse(order)
    config.check(wanted)
    new = queue.submit(wanted)
    return {"run": new.id, "state": new.state()}


def status(name: str) -> dict[str, Any]:
    """What a run is and how it stands, under the names `python -m studio show` gives. name: the run, a part of it, or last."""
    return run.summary(run.find(name))


def stop(name: str, discard: bool = False) -> dict[str, Any]:
    """Ask a run to stop after its step and save; with discard, without a result."""
    one = run.find(name)
    return {"run": one.id, "state": queue.stop(one, discard)}
