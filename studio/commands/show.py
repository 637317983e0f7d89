"""show: how one run stands, for programs with everything that is known, for people on one screen."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from studio import benchmark, general, queue, race, run
from studio.commands import RUN, Commands, print_table, size
from studio.commands.race import COLUMNS, show_table
from studio.export import evaluation
from studio.forecast.remedies import REPAIRED, repairs
from studio.general.verdict import describe
from studio.run import Run
from studio.runs import evaluations
from studio.runs.figures import figures
from studio.runs.signs import signs
from studio.runs.silence import silence


def add(commands: Commands) -> None:
    about = "how one run stands, with signs of trouble; after an out-of-memory, what would help"
    shown = commands.add("show", about, show, show_run)
    shown.add_argument("name", metavar="RUN", help=RUN)


def show(args: Namespace) -> dict[str, Any]:
    """A run's summary, with its signs, remedies, measurements, changes and bytes."""
    chosen = run.find(args.name)
    queue.reconcile(chosen)
    answer = run.summary(chosen)
    answer["signs"] = (
        [sign._asdict() for sign in [*signs(chosen.events()), *silence(chosen, chosen.events())]]
        if answer["state"] in (*run.ALIVE, "finished", "stopped")
        else []
    )
    answer["repairs"] = repairs(chosen) if answer["reason"] in REPAIRED else []
    answer["forgetting_curve"] = general.curve(run.current_events(chosen.events()))
    standing = {"table": race.table(chosen)} if answer["race"] else {}
    measured = evaluations.metrics(chosen)
    answer["benchmarks"] = benchmark.results(chosen)
    return {**answer, "metrics": measured, **standing, "changes": chosen.changes(), "bytes": chosen.sizes()}


def show_run(answer: dict[str, Any]) -> None:
    """Print what `show` answers: state and cause, order, figures, warnings, measurements, what comes next."""
    chosen = run.find(answer["id"])
    print(f"{answer['id']}{'  ★' if answer['star'] else ''}")
    working = answer["state"] in run.ALIVE and answer["phase"]
    print(f"{answer['state']}{': ' + answer['phase'] if working else ''}{', on hold' if answer['hold'] else ''}")
    for sentence in (answer["cause"], answer["action"]):
        if sentence:
            print(f"  {sentence}")
    for repair in answer["repairs"]:
        saves = f" (saves {size(repair['saves'])})" if repair["saves"] else ""
        print(f"  - {repair['text']}{saves}; {repair['cost']}")
    _print_rows([*_ordered(answer), *figures(answer), *_kept(answer)])
    for sign in answer["signs"]:
        print(f"{sign['level']}, step {sign['step']}: {sign['text']} {sign['action']}")
    if answer["forgetting"]:
        print("\n".join(describe(answer["forgetting"])))
    if answer.get("table"):
        show_table(answer["table"], COLUMNS)
    _print_measured(chosen)
    if following := _next(answer):
        print(f"next: python -m studio {following} {answer['id']}")


def _ordered(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    method = answer["method"] if answer["stage"] in (None, "sft") else f"{answer['method']}, stage {answer['stage']}"
    rows = [
        ("name", answer["name"]),
        ("model", answer["model"]),
        ("method", method),
        ("data", answer["data"]),
        ("note", answer["note"]),
        ("begun", time.strftime("%Y-%m-%d %H:%M", time.localtime(answer["created"]))),
        *(("edited data", edit["text"]) for edit in answer["edited"]),
        *(("changed", f"{change['why']}: {_flat(change['changes'])}") for change in answer["changes"]),
    ]
    return [(name, value) for name, value in rows if value]


def _flat(changes: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{section}.{key} = {value}" for section, keys in changes.items() for key, value in keys.items())


def _kept(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    taken = answer["bytes"]
    rows = [
        ("on disk", f"{size(taken['total'])} (checkpoints {size(taken['checkpoints'])}, model {size(taken['model'])})"),
        ("result", answer["result"]),
        *(("exported", exported) for exported in answer["exported"]),
        *(("uploaded", uploaded) for uploaded in answer["uploaded"]),
    ]
    return [(name, value) for name, value in rows if value]


def _print_rows(rows: list[tuple[str, Any]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:{width}}  {value}")


def _print_measured(chosen: Run) -> None:
    """Evaluation by answers and benchmarks, each as the table of its report."""
    verdict, rows = evaluation.figures(chosen)
    if verdict:
        print(verdict)
    for head, body in ((evaluation.HEAD, rows), (benchmark.HEAD, benchmark.rows(chosen))):
        if body:
            print_table([list(head), *body], indent="  ")


def _next(answer: dict[str, Any]) -> str:
    """The command that a person in this place most likely wants."""
    if answer["state"] in run.ALIVE:
        return "log -f"
    if answer["saved"]:
        return "chat"
    return "resume" if answer["state"] in ("stopped", "failed", "lost") and answer["step"] else ""
