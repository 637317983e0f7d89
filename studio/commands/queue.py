"""queue, stop, pause, resume, finish, extend, move, ask, duplicate, label, delete: what can be done with a run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from studio import config, preflight, queue, run, yaml_text
from studio.commands import RUN, add_settings
from studio.commands.runs import _show_list
from studio.errors import RunError
from studio.run import REQUESTS, Run
from studio.runs import goal, remote


def add(parsers: Any, common: ArgumentParser) -> None:
    parsers.add_parser("queue", parents=[common], help="what waits, in order; moves on what can").set_defaults(
        run=waiting, show=_show_list
    )
    stopped = _about(parsers, common, "stop", stop, "stop a run and keep what it learnt")
    stopped.add_argument("--discard", action="store_true", help="keep nothing")
    _about(parsers, common, "pause", pause, "stop a run and let it wait in the queue until it is resumed")
    resumed = _about(parsers, common, "resume", resume, "go on from the last checkpoint")
    add_settings(resumed, "change the order from here on: --set training.batch_size=1")
    _about(
        parsers,
        common,
        "finish",
        finish,
        "make the model of a run's newest checkpoint its result, without another step",
    )
    extended = _about(parsers, common, "extend", extend, "let a run go on for some epochs more")
    extended.add_argument("epochs", type=float, help="how many")
    moved = _about(parsers, common, "move", move, "give a waiting run another place in the queue")
    moved.add_argument("place", type=int, help="1 is next")
    asked = _about(parsers, common, "ask", ask, "ask a running run for something after its step")
    asked.add_argument("what", choices=REQUESTS)
    doubled = _about(parsers, common, "duplicate", duplicate, "queue a new run with the same order")
    add_settings(doubled, "with this changed")
    labelled = _about(parsers, common, "label", label, "write a name, a note or a star on a run")
    labelled.add_argument("--name", dest="new_name", help="another name to show; the folder keeps its own")
    labelled.add_argument("--note", help="free text")
    labelled.add_argument("--star", choices=("on", "off"))
    deleted = _about(parsers, common, "delete", delete, "delete a run and its files; says how many bytes")
    deleted.add_argument(
        "--keep-files",
        action="store_true",
        help="only take it off the list; its folder moves to removed/ under the home",
    )
    deleted.add_argument("--dry-run", action="store_true", help="only say how many bytes it is")


def _about(parsers: Any, common: ArgumentParser, name: str, function: Any, text: str) -> ArgumentParser:
    one = parsers.add_parser(name, parents=[common], help=text)
    one.add_argument("name", metavar="RUN", help=RUN)
    one.set_defaults(run=function)
    return one


def _told(one: Run, **more: Any) -> dict[str, Any]:
    return {"run": one.id, "state": one.state(), **more}


def waiting(args: Namespace) -> list[dict[str, Any]]:
    queue.advance()
    return [run.summary(one) for one in queue.waiting()]


def stop(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    return {"run": one.id, "state": queue.stop(one, args.discard)}


def pause(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    return {"run": one.id, "state": queue.pause(one)}


def resume(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    queue.resume(one, _changes(args.settings))
    return _told(one)


def finish(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    goal.finish(one)
    return _told(one)


def extend(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    goal.extend(one, args.epochs)
    return _told(one)


def move(args: Namespace) -> list[str]:
    return [one.id for one in queue.move(run.find(args.name), args.place)]


def ask(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    one.ask(args.what)
    return _told(one)


def duplicate(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    order = config.parse(one.config.to_yaml(), args.settings, where=one.id)
    preflight.check(order)
    return _told(queue.submit(order))


def label(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    labels = {"name": args.new_name, "note": args.note, "star": None if args.star is None else args.star == "on"}
    return _told(one, **one.label(**{key: value for key, value in labels.items() if value is not None}))


def delete(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    if args.dry_run:
        return _told(one, bytes=one.size())
    left = "" if args.keep_files else remote.remove(one)
    return {
        "run": one.id,
        "state": "deleted",
        "bytes": run.delete(one, args.keep_files),
        **({"note": left} if left else {}),
    }


def _changes(settings: list[str]) -> dict[str, dict[str, Any]] | None:
    """section.key=value, several, as sections."""
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        section, dot, name = key.partition(".")
        if not sign or not dot or "." in name:
            raise RunError(f"--set {setting!r} is no change.", "Write --set training.batch_size=1.", "set")
        found.setdefault(section, {})[name] = yaml_text.read(value, f"--set {key}")
    return found or None
