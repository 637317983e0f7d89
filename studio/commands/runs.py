"""train, runs, show, log, stop, resume, queue, delete."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from typing import Any

from studio import config, queue, run
from studio.commands import Failed
from studio.events import read
from studio.run import Run


def add(parsers: Any, common: ArgumentParser) -> None:
    train = parsers.add_parser("train", parents=[common], help="train a model from a YAML order")
    train.add_argument("config", help="a YAML file, or `sample` for the bundled data with every default")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="change the order: --set method.rank=16")
    train.add_argument("--detach", action="store_true", help="return at once; the run goes on by itself")
    train.set_defaults(run=start, show=_show_end)
    parsers.add_parser("runs", parents=[common], help="list all runs").set_defaults(run=listing, show=_show_list)
    for name, function, text in (("show", show, "how one run stands"), ("stop", stop, "stop a run and keep what it learnt"),
                                 ("resume", resume, "go on from the last checkpoint"), ("delete", delete, "delete a run and its files")):
        one = parsers.add_parser(name, parents=[common], help=text)
        one.add_argument("name", metavar="RUN", help="a run's id, a unique part of it, or last")
        one.set_defaults(run=function)
        if name == "stop":
            one.add_argument("--discard", action="store_true", help="keep nothing")
    log = parsers.add_parser("log", parents=[common], help="the trainer's output")
    log.add_argument("name", metavar="RUN")
    log.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    log.set_defaults(run=show_log, show=lambda answer: None)
    parsers.add_parser("queue", parents=[common], help="what waits, in order").set_defaults(run=waiting, show=_show_list)


def start(args: Namespace) -> dict[str, Any]:
    """Queue an order and, unless --detach, follow it to its end. Ctrl-C asks it to stop; a second one leaves it to itself."""
    if args.config == "sample":
        order = config.parse("data: {train: sample}", args.settings, where="sample")
    else:
        order = config.load(args.config, args.settings)
    config.check(order)
    one = queue.submit(order)
    print(f"run {one.id}", file=sys.stderr)
    if args.detach:
        return {"run": one.id, "state": one.state()}
    try:
        follow(one)
    except KeyboardInterrupt:
        queue.stop(one)
        print("\nstopping after this step; Ctrl-C again leaves it to itself", file=sys.stderr)
        follow(one)
    answer = run.summary(one)
    answer = {"run": one.id, **{key: answer[key] for key in ("state", "cause", "action", "train_loss", "eval_loss_before", "eval_loss", "seconds", "result")}}
    if answer["state"] not in ("finished", "stopped"):
        raise Failed(answer)
    return answer


def follow(one: Run) -> None:
    """Print progress to standard error until the run has ended and its processes are gone."""
    cursor, steps, quiet = 0, None, not sys.stderr.isatty()
    while True:
        ended = one.state() not in ("queued", *run.ALIVE) and not one.alive()
        new, cursor = read(one.diary, cursor)
        for event in new:
            if event["kind"] == "plan":
                steps = event["steps"]
            line = _line(event, steps)
            if line:
                print(line, file=sys.stderr, end="\n" if quiet or event["kind"] != "step" else "\r", flush=True)
        if ended and not new:
            return
        time.sleep(0.2)


def _line(event: dict[str, Any], steps: int | None) -> str:
    kind = event["kind"]
    if kind == "phase":
        return f"{event['name']}…"
    if kind == "step":
        loss = "not a number" if event["loss"] is None else f"{event['loss']:.4f}"
        return f"step {event['step']}/{steps}  loss {loss}  {event.get('tokens_per_second') or 0:.0f} tokens/s   "
    if kind == "eval" and event["loss"] is not None:
        return f"step {event['step']}  held-out loss {event['loss']:.4f}"
    if kind == "note":
        return f"{event['level']}: {event['text']}"
    return ""


def listing(args: Namespace) -> list[dict[str, Any]]:
    queue.advance()
    return [run.summary(one) for one in run.runs()]


def show(args: Namespace) -> dict[str, Any]:
    return run.summary(run.find(args.name))


def stop(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    return {"run": one.id, "state": queue.stop(one, args.discard)}


def resume(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    queue.resume(one)
    return {"run": one.id, "state": one.state()}


def delete(args: Namespace) -> dict[str, Any]:
    one = run.find(args.name)
    return {"run": one.id, "bytes": run.delete(one)}


def waiting(args: Namespace) -> list[dict[str, Any]]:
    queue.advance()
    return [run.summary(one) for one in queue.waiting()]


def show_log(args: Namespace) -> dict[str, Any]:
    one, place = run.find(args.name), 0
    while True:
        ended = not one.alive()
        if one.log.exists():
            with open(one.log, "rb") as file:
                file.seek(place)
                data = file.read()
                place = file.tell()
            print(data.decode("utf-8", "replace"), end="", file=sys.stderr if args.json else sys.stdout, flush=True)
        if ended or not args.follow:
            return {"run": one.id, "state": one.state()}
        time.sleep(0.5)


def _show_list(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("No runs. Start one with: python -m studio train sample")
    for row in rows:
        loss = "" if row["eval_loss"] is None else f"held-out loss {row['eval_loss']:.4f}"
        print(f"{row['state']:9} {row['id']:50} {row['method'] or '':8} {row['step']}/{row['steps'] or '?'}  {loss}")


def _show_end(answer: dict[str, Any]) -> None:
    for key, value in answer.items():
        if value not in (None, ""):
            print(f"{key}: {value}")
