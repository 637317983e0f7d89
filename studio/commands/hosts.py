"""hosts: what to type on each of several computers that share one run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from studio import launch, run


def add(parsers: Any, common: ArgumentParser) -> None:
    """hosts RUN --count N --each M."""
    parser = parsers.add_parser("hosts", parents=[common], help="the commands, a Slurm and a SkyPilot file for one run on several hosts")
    parser.add_argument("name", metavar="RUN")
    parser.add_argument("--count", type=int, default=2, help="hosts")
    parser.add_argument("--each", type=int, default=8, help="devices on each")
    parser.set_defaults(run=told, show=show)


def told(args: Namespace) -> dict[str, Any]:
    """The command for every host, and the two files' text."""
    one = run.find(args.name)
    return {"run": one.id, **launch.hosts(one.config, args.count, args.each, str(one.folder))}


def show(answer: dict[str, Any]) -> None:
    for number, line in enumerate(answer["commands"]):
        print(f"host {number}:\n  {line}")
    print(f"\n# {answer['run']}.slurm\n{answer['slurm']}\n# {answer['run']}.sky.yaml\n{answer['skypilot']}")
