"""dashboard: opens what a run's trackers wrote, in their own viewer."""

from __future__ import annotations

import subprocess
from argparse import Namespace
from typing import Any

from studio import auto, credentials, trackers
from studio.commands import RUN, Commands
from studio.errors import OrderError
from studio.run import find


def add(commands: Commands) -> None:
    about = "open what a run's trackers wrote: trackio, TensorBoard or MLflow"
    parser = commands.add("dashboard", about, run, lambda answer: None)
    parser.add_argument("name", metavar="RUN", nargs="?", default="last", help=f"{RUN} (last)")
    parser.add_argument("--tracker", choices=list(trackers.TRACKERS), help="of several, this one")
    parser.add_argument("--port", type=int, help="of TensorBoard or MLflow")


def run(args: Namespace) -> dict[str, Any]:
    """{run, tracker, command}, when the viewer was closed; under --json at once, and nothing is opened."""
    found = find(args.name)
    written = found.config.training.report_to
    names = [name for name in written if args.tracker in (None, name)]
    name = next((name for name in names if trackers.viewer(name, found.folder)), None)
    if name is None:
        raise OrderError(*_nothing_to_open(found.id, names or written, args.tracker), "training.report_to")
    if not auto.installed(trackers.TRACKERS[name].package):
        raise OrderError(f"{name} is not installed.", f"Install it: pip install {name}.", "training.report_to")
    command = trackers.viewer(name, found.folder, args.port)
    if not args.json:
        subprocess.run(command, env=credentials.child_environment(), check=False)
    return {"run": found.id, "tracker": name, "command": command}


def _nothing_to_open(run: str, names: Any, asked: str | None) -> tuple[str, str]:
    if asked and asked not in names or not names:
        return (
            f"The run {run} wrote nothing for {asked or 'a tracker'}.",
            "Name one before the start: --set training.report_to=[trackio].",
        )
    return (f"{', '.join(names)} has no viewer on this computer.", "Open it on the tracker's own site after a sync.")
