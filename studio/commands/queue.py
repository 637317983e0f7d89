"""queue, stop, pause, resume, finish, extend, move, ask, duplicate, label, delete: what can be done with a run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from studio import config, preflight, queue, run, yaml_text
from studio.commands import RUN, Commands, add_settings
from studio.commands.runs import _show_list
from studio.errors import RunError
from studio.run import REQUESTS, Run
from studio.runs import goal, remote


def add(commands: Commands) -> None:
    commands.add("queue", "what waits, in order; moves on what can", waiting, _show_waiting)
    stopped = _about(commands, "stop", stop, "stop a run and keep what it learnt")
    stopped.add_argument("--discard", action="store_true", help="keep nothing")
    _about(commands, "pause", pause, "stop a run and let it wait in the queue until it is resumed")
    resumed = _about(commands, "resume", resume, "go on from the last checkpoint")
    add_settings(resumed, "change the order from here on: --set training.batch_size=1")
    _about(commands, "finish", finish, "make the model of a run's newest checkpoint its result, without another step")
    extended = _about(commands, "extend", extend, "let a run go on for some epochs more")
    extended.add_argument("epochs", type=float, help="how many")
    moved = _about(commands, "move", move, "give a waiting run another place in the queue")
    moved.add_argument("place", type=int, help="1 is next")
    asked = _about(commands, "ask", ask, "ask a running run for something after its step")
    asked.add_argument("what", choices=REQUESTS)
    doubled = _about(commands, "duplicate", duplicate, "queue a new run with the same order")
    add_settings(doubled, "with this changed")
    labelled = _about(commands, "label", label, "write a name, a note or a star on a run")
    labelled.add_argument("--name", dest="new_name", help="another name to show; the folder keeps its own")
    labelled.add_argument("--note", help="free text")
    labelled.add_argument("--star", choices=("on", "off"))
    deleted = _about(commands, "delete", delete, "delete a run and its files; says how many bytes")
    deleted.add_argument(
        "--keep-files",
        action="store_true",
        help="only take it off the list; its folder moves to removed/ under the home",
    )
    deleted.add_argument("--dry-run", action="store_true", help="only say how many bytes it is")


def _about(commands: Commands, name: str, function: Callable[[Namespace], Any], text: str) -> ArgumentParser:
    parser = commands.add(name, text, function)
    parser.add_argument("name", metavar="RUN", help=RUN)
    return parser


def _told(chosen: Run, **more: Any) -> dict[str, Any]:
    return {"run": chosen.id, "state": chosen.state(), **more}


def _show_waiting(rows: list[dict[str, Any]]) -> None:
    if rows:
        _show_list(rows)
    else:
        print("Nothing waits.")


def waiting(args: Namespace) -> list[dict[str, Any]]:
    queue.advance()
    return [run.summary(queued) for queued in queue.waiting()]


def stop(args: Namespace) -> dict[str, Any]:
    chosen = run.find(args.name)
    return {"run": chosen.id, "state": queue.stop(chosen, args.discard)}


def pause(args: Namespace) -> dict[str, Any]:
    chosen = run.find(args.name)
    return {"run": chosen.id, "state": queue.pause(chosen)}


def resume(args: Namespace) -> dict[str, Any]:
    chosen = run.find(args.name)
    changed = queue.resume(chosen, _changes(args.settings))
    return _told(chosen, **({"changed": changed} if changed else {}))


def finish(args: Namespace) -> dict[str, Any]:
    chosen = run.find(args.name)
    goal.finish(chosen)
    return _told(chosen)


def extend(args: Namespace) -> dict[str, Any]:
    chosen = run.find(args.name)
    goal.extend(chosen, args.epochs)
    return _told(chosen)


def move(args: Namespace) -> list[str]:
    return [queued.id for queued in queue.move(run.find(args.name), args.place)]


def ask(args: Namespace) -> dict[str, Any]:
    chosen = run.find(args.name)
    chosen.ask(args.what)
    return _told(chosen)


def duplicate(args: Namespace) -> dict[str, Any]:
    chosen = run.find(args.name)
    order = config.parse(chosen.config.to_yaml(), args.settings, where=chosen.id)
    preflight.check(order)
    return _told(queue.submit(order))


def label(args: Namespace) -> dict[str, Any]:
    chosen = run.find(args.name)
    labels = {"name": args.new_name, "note": args.note, "star": None if args.star is None else args.star == "on"}
    return _told(chosen, **chosen.label(**{key: value for key, value in labels.items() if value is not None}))


def delete(args: Namespace) -> dict[str, Any]:
    chosen = run.find(args.name)
    if args.dry_run:
        return _told(chosen, bytes=chosen.size())
    left = "" if args.keep_files else remote.remove(chosen)
    return {
        "run": chosen.id,
        "state": "deleted",
        "bytes": run.delete(chosen, args.keep_files),
        **({"note": left} if left else {}),
    }


def _changes(settings: list[str]) -> dict[str, dict[str, Any]] | None:
    """section.key=value, several, as sections."""
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        section, dot, name = key.partition(".")
        if not sign or not dot or "." in name:
            raise RunError(f"--set {setting!r} is no change.", "Write --set training.batch_size=1.", "set")
        changes.setdefault(section, {})[name] = yaml_text.read(value, f"--set {key}")
    return changes or None
