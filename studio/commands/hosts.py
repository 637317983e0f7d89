"""hosts: what to type on each of several computers that share one run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from studio import config, preflight, queue, run
from studio.commands import Commands, add_settings
from studio.errors import OrderError
from studio.run import Run
from studio.runs import launch


def add(commands: Commands) -> None:
    about = "the commands, a Slurm and a SkyPilot file for one run on several hosts"
    parser = commands.add("hosts", about, commands_of, show)
    parser.add_argument(
        "name",
        metavar="CONFIG|RUN",
        help="a YAML order, of which a run is made that waits for these commands, or such a run",
    )
    parser.add_argument("--count", type=int, default=2, help="hosts")
    parser.add_argument("--each", type=int, help="devices on each; left out: training.devices of the order")
    add_settings(parser)


def commands_of(args: Namespace) -> dict[str, Any]:
    """The command for every host, and the two files' text."""
    one = _made(args) if Path(args.name).is_file() else run.find(args.name)
    each = one.config.training.device_count
    if args.each not in (None, each):
        message = f"The order of {one.id} wants {each} devices on each host, not {args.each}."
        hint = f"Give the YAML order instead of the run, or leave --each out and order training.devices: {args.each}."
        raise OrderError(message, hint, "training.devices")
    return {"run": one.id, "folder": str(one.folder), **launch.hosts(one.config, args.count, str(one.folder))}


def _made(args: Namespace) -> Run:
    """A run of the order, on hold: no queue starts it."""
    more = [] if args.each is None else [f"training.devices={args.each}"]
    order = config.load(args.name, [*args.settings, *more])
    preflight.check(order)
    return queue.submit_on_hold(order)


def show(answer: dict[str, Any]) -> None:
    for number, line in enumerate(answer["commands"]):
        print(f"host {number}:\n  {line}")
    print(f"\n# {answer['run']}.slurm: sbatch FILE {answer['folder']}\n{answer['slurm']}")
    print(f"# {answer['run']}.sky.yaml: sky launch FILE --env RUN={answer['folder']}\n{answer['skypilot']}")
