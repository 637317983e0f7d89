"""What a page asks about one run now and then: its log, its order, how runs differ, what would help."""

from __future__ import annotations

from typing import Any

import yaml
from starlette.responses import Response

from studio import trackers
from studio.errors import StudioError
from studio.forecast import remedies
from studio.home import folder_size
from studio.run import Run
from studio.runs import checkpoints, compare
from studio.ui import live, rights
from studio.ui.who import VISITOR, WATCHER


@rights.read(WATCHER, VISITOR, waits=True)
def whole_log(question: dict[str, Any]) -> Response:
    """All of log.txt as plain text."""
    try:
        text = live.run_of(question).log.read_bytes()
    except (StudioError, FileNotFoundError):
        text = b""
    return Response(text, media_type="text/plain; charset=utf-8", headers={"X-Content-Type-Options": "nosniff"})


@rights.read(WATCHER, VISITOR)
def order(question: dict[str, Any]) -> Response:
    """A run's order and the checkpoints it has: {order: YAML, plain, checkpoints, dashboard: a command}."""
    try:
        run_ = live.run_of(question)
        config = run_.config
    except StudioError as error:
        return live.json_response({"order": "", "error": str(error)})
    text = config.to_yaml()
    return live.json_response(
        {
            "order": text,
            "plain": yaml.safe_load(text),
            "checkpoints": [_checkpoint(run_, step) for step in checkpoints.steps(run_.checkpoints)],
            "dashboard": trackers.open_command(config.training.report_to, run_.folder),
        }
    )


@rights.read(WATCHER, VISITOR)
def differences(question: dict[str, Any]) -> Response:
    """Runs side by side: {settings: [{key, values}], answers: [{prompt, answers}]}, values in the order of the runs."""
    found = []
    for name in [str(item) for item in (question.get("ids") or [])[:8]]:
        try:
            found.append(live.get_run(name))
        except StudioError:
            continue
    digests = [live.tails.of(run_).digest() for run_ in found]
    return live.json_response({"settings": compare.differing(found), "answers": compare.answers(digests)})


@rights.read(WATCHER, VISITOR, waits=True)
def repairs(question: dict[str, Any]) -> Response:
    """After an out-of-memory: what would help, with the predicted saving of each (studio/forecast/remedies.py)."""
    try:
        return live.json_response({"repairs": remedies.repairs(live.run_of(question))[:6]})
    except StudioError as error:
        return live.json_response({"repairs": [], "error": str(error)})


def _checkpoint(run_: Run, step: int) -> dict[str, Any]:
    folder = run_.checkpoints / f"checkpoint-{step}"
    return {
        "step": step,
        "faults": checkpoints.faults(folder),
        "at": folder.stat().st_mtime,
        "bytes": folder_size(folder),
    }
