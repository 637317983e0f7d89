"""What a combination's diary says of its worth."""

from __future__ import annotations

from typing import Any

from studio.run import Run


def losses(run: Run) -> list[dict[str, Any]]:
    """[{run, rows, of, tokens, base, parents: {run: loss}, combined}] as the worker measured them last; [] where nothing was."""
    return next(
        (event["table"] for event in reversed(run.events()) if event["kind"] == "eval" and "table" in event), []
    )
