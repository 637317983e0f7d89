"""train, runs, log, compare: start a run and read what there is."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from studio import config, origin, preflight, queue, run
from studio.commands import RUN, Commands, Failed, add_settings
from studio.data.record import changes
from studio.events import read
from studio.general.verdict import describe
from studio.run import Run
from studio.runs import compare as comparing
from studio.runs import leaderboard, log

SUMMARY_KEYS = ("run", "state", "cause", "action", "train_loss", "eval_loss_before", "eval_loss", "seconds", "result")


def add(commands: Commands) -> None:
    train = commands.add("train", "train a model from a YAML order, or on data with every default", start, _show_end)
    train.add_argument(
        "config", help="a YAML file; or a data file, or `sample` for the bundled data, with every default"
    )
    add_settings(train)
    train.add_argument("--detach", action="store_true", help="return at once; the run goes on by itself")
    listed = commands.add("runs", "list all runs", listing, _show_list)
    listed.add_argument("--state", choices=run.STATES, help="only those in this state")
    listed.add_argument(
        "--search", metavar="TEXT", default="", help="only those with this in name, note, model, method or data"
    )
    listed.add_argument("--star", action="store_true", help="only those with a star")
    listed.add_argument(
        "--leaderboard",
        metavar="DATA",
        help="the finished runs on this data by gain, forgetting, memory, time, size; * marks what none beats",
    )
    logged = commands.add("log", "the trainer's output", show_log, lambda answer: None)
    logged.add_argument("name", metavar="RUN", help=RUN)
    logged.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    about = "several runs: the settings that differ, the numbers side by side"
    compared = commands.add("compare", about, compare, _show_compared)
    compared.add_argument("names", metavar="RUN", nargs="+", help="two or more runs")


def start(args: Namespace) -> dict[str, Any]:
    """Queue an order and, unless --detach, follow it. Ctrl-C asks it to stop; a second one leaves it to itself."""
    sample = args.config == "sample"
    order = (
        config.parse("data: {train: sample}", args.settings, where="sample")
        if sample
        else config.load(args.config, args.settings)
    )
    order = origin.completed(order)
    preflight.check(order)
    answer = submit_and_follow(lambda: queue.submit(order), args.detach)
    return answer if args.detach else {key: answer[key] for key in SUMMARY_KEYS if key in answer}


def submit_and_follow(submit: Callable[[], Run], detach: bool) -> dict[str, Any]:
    """Queue a run and, unless `detach`, follow it to its end: {run, …} and its summary. Raises Failed with them."""
    try:
        new = submit()
    except KeyboardInterrupt:
        print(
            "\nif it was queued already, it goes on by itself: python -m studio queue, python -m studio runs",
            file=sys.stderr,
        )
        raise
    print(f"run {new.id}", file=sys.stderr)
    if detach:
        return {"run": new.id, "state": new.state()}
    try:
        try:
            follow(new)
        except KeyboardInterrupt:
            if not queue.over(new):
                queue.stop(new)
            print(
                "\nstopping after this step, and keeping what it learnt; Ctrl-C again leaves it to itself",
                file=sys.stderr,
            )
            follow(new)
    except KeyboardInterrupt:
        print(f"\nit ends by itself; see how: python -m studio show {new.id}", file=sys.stderr)
        return {"run": new.id, "state": new.state()}
    answer = {"run": new.id, **run.summary(new)}
    if answer["state"] in ("failed", "lost"):
        raise Failed({key: answer[key] for key in SUMMARY_KEYS})
    return answer


def follow(chosen: Run) -> None:
    """Print progress to standard error until the run is over."""
    cursor, steps, quiet = 0, None, not sys.stderr.isatty()
    while True:
        ended = queue.over(chosen)
        new, cursor = read(chosen.events_file, cursor)
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
        return f"{event['name']}{' ' + event['detail'] if event.get('detail') else ''}…"
    if kind == "plan":
        return "\n".join(f"warning: {sentence}" for sentence in changes(event.get("data") or {}))
    if kind == "step":
        loss = "not a number" if event["loss"] is None else f"{event['loss']:.4f}"
        setting = f"  setting {event['contestant']}" if "contestant" in event else ""
        return (
            f"step {event['step']}/{steps}{setting}  loss {loss}  {event.get('tokens_per_second') or 0:.0f} tokens/s   "
        )
    if kind == "eval" and event["loss"] is not None:
        return f"step {event['step']}  held-out loss {event['loss']:.4f}"
    if kind == "forgetting" and event.get("final"):
        return "\n".join(describe(event))
    if kind == "note":
        return f"{event.get('level', 'info')}: {event.get('text', '')}"
    return ""


def listing(args: Namespace) -> list[dict[str, Any]]:
    queue.advance()
    if args.leaderboard:
        return leaderboard.leaderboard(args.leaderboard)
    for unread in run.unreadable():
        print(unread, file=sys.stderr)
    rows = [run.summary(listed) for listed in run.runs()]
    search = args.search.casefold()
    return [
        row
        for row in rows
        if (not args.state or row["state"] == args.state)
        and (not args.star or row["star"])
        and search in " ".join(str(row[key]) for key in ("id", "name", "note", "model", "method", "data")).casefold()
    ]


def show_log(args: Namespace) -> dict[str, Any]:
    chosen, position = run.find(args.name), (0, 0)
    out = sys.stderr if args.json else sys.stdout
    while True:
        ended = queue.over(chosen) or not args.follow
        data, position = log.follow(chosen.log, position)
        print(data.decode("utf-8", "replace"), end="", file=out, flush=True)
        if ended:
            return {"run": chosen.id, "state": chosen.state()}
        time.sleep(0.5)


def compare(args: Namespace) -> dict[str, Any]:
    return comparing.compare([run.find(name) for name in args.names])


def _show_list(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("No runs. Start one with: python -m studio train sample")
    if rows and "front" in rows[0]:
        _show_leaders(rows)
        return
    for row in rows:
        cause = f"  {row['cause']}" if row["cause"] and row["state"] in ("failed", "lost") else ""
        loss = "" if row["best_eval_loss"] is None else f"held-out loss {row['best_eval_loss']:.4f}"
        print(
            f"{row['state']:9}{'★' if row['star'] else ' '} {row['id']:50} {row['method'] or '':8} "
            f"{row['step']}/{row['steps'] or '?'}  {loss}{cause}{'  on hold' if row['hold'] else ''}"
        )


def _show_leaders(rows: list[dict[str, Any]]) -> None:
    print(f"  {'run':44} {'method':9} {'gain':>8} {'forgot':>8} {'memory':>10} {'seconds':>9} {'size':>10}")
    for row in rows:
        gain, forgot = ("–" if row[key] is None else f"{row[key]:.4f}" for key in ("gain", "forgetting"))
        memory, size = ("–" if row[key] is None else f"{row[key] / 2**20:.0f} MiB" for key in ("memory", "size"))
        print(
            f"{'*' if row['front'] else ' '} {row['run']:44} {row['method']:9} {gain:>8} {forgot:>8} {memory:>10} "
            f"{row['seconds']:9.0f} {size:>10}"
        )


def _show_end(answer: dict[str, Any]) -> None:
    for key, value in answer.items():
        if value not in (None, ""):
            print(f"{key}: {value}")


def _show_compared(answer: dict[str, Any]) -> None:
    for part in ("settings", "numbers"):
        print(part)
        for row in answer[part]:
            print(f"  {row['key']:32} " + "  ".join(f"{value!s:24}" for value in row["values"]))
    for row in answer["answers"]:
        print(f"> {row['prompt']}")
        for name, text in zip(answer["runs"], row["answers"]):
            print(f"  {name}: {'not asked' if text is None else ' '.join(text.split())[:300]}")
