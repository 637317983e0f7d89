"""The evaluation of a combination."""

from __future__ import annotations

from typing import Any

from studio.run import Run


def losses(run: Run) -> list[dict[str, Any]]:
    """[{run, rows, of, tokens, base, parents: {run: loss}, combined}] of the last evaluation, [] without one."""
    return next(
        (event["table"] for event in reversed(run.events()) if event["kind"] == "eval" and "table" in event), []
    )
