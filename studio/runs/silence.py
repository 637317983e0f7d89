"""A living run of which nothing is heard: its processes are stopped, hang, or wait for something."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median
from typing import Any

from studio.events import latest, seconds
from studio.runs.folder import Run
from studio.runs.sign import Sign

QUIET, STEPS = 120.0, 20  # seconds, and usual steps, after which a step that has not ended is told
LONG = 1800.0  # seconds in a phase without a pace of its own: loading, evaluating, saving


def silence(run: Run, events: list[dict[str, Any]]) -> list[Sign]:
    """The sign that neither events nor output have been written for long; none where the run is not alive.

    events: of the run; steps in the middle may be missing.
    """
    name, steps = latest(events, "phase").get("name"), [event for event in events if event["kind"] == "step"][-10:]
    if name == "reconnecting" or not run.alive():
        return []
    usual = median([seconds(before, after) for before, after in pairwise(steps)]) if len(steps) > 1 else 0.0
    limit = max(QUIET, STEPS * usual) if name == "training" and usual else LONG
    silent = time.time() - max(file.stat().st_mtime for file in (run.events_file, run.log) if file.exists())
    if silent < limit:
        return []
    sign = Sign(
        "silent",
        "warning",
        f"Nothing has been heard of this run for {silent / 60:.0f} minutes.",
        "Its process may be stopped, hang, or wait for a device or a disk that does not answer.",
        "If the computer slept or is overloaded, the run goes on by itself. Otherwise press Stop: it is ended within "
        "minutes, and can be resumed from its last checkpoint.",
        steps[-1]["step"] if steps else 0,
    )
    return [sign]
