"""Races and plans on the page: start one, watch it, go on with a setting. The core is studio/race.py and plan.py."""

from __future__ import annotations

from typing import Any

import yaml
from starlette.responses import Response

from studio import plan, preflight, queue, race, race_settings
from studio.config import RunConfig
from studio.errors import OrderError, StudioError
from studio.run import Run
from studio.runs import compare
from studio.ui import files, live, measure, rights, space
from studio.ui.who import VISITOR, WATCHER

MOST_POINTS = 200  # of a setting's training curve


@rights.job(waits=True)
def start_race(order: str, settings: list[str], halving: bool = True) -> dict[str, Any]:
    """Race settings of an order in YAML: settings as `--set` takes them, ["method.rank=8,16"]. Returns {run, state}."""
    base = _ordered(order)
    if not isinstance(settings, list) or not all(
        isinstance(setting, str) and len(setting) < 2000 for setting in settings
    ):
        raise OrderError("These are no settings.", "Give a list such as method.rank=8,16.", "settings")
    common, varied = race_settings.variants(settings)
    if common:
        raise OrderError(f"{common[0]} has one value.", "Give several, or write it into the order.", "settings")
    if not base.data.eval:
        base = base.with_changes(data={"eval": 0.1})
    race_order = race.order(base, varied or race_settings.default_settings(base), halving=halving is True)
    return _answer(race.start(race_order, measure.rows_of(base)))


@rights.job(waits=True)
def start_plan(order: str, minutes: float = 10) -> dict[str, Any]:
    """Look whether an order's data would help, in so many minutes (studio/plan.py). Returns {run, state}."""
    base = _ordered(order)
    if not isinstance(minutes, int | float):
        raise OrderError("The minutes are no number.", "Give a number from 1 to 1440.", "minutes")
    preflight.check(base)
    rows = measure.rows_of(base)
    figures = rows and {
        "rows": rows.rows,
        "tokens": rows.tokens,
        "trained": rows.label_tokens,
        "max": rows.longest,
        "eval_rows": rows.eval_rows,
    }
    return _answer(race.start(plan.order(base, float(minutes), measure.facts_of(base), figures), figures))


@rights.job()
def keep_setting(name: str, setting: int | None = None) -> dict[str, Any]:
    """Let a setting of a race that is over go on as an ordinary run; the winner by default. Returns {run, state}."""
    if setting is not None and (not isinstance(setting, int) or isinstance(setting, bool)):
        raise OrderError("The setting is no number.", "Give its number in the table.", "setting")
    return _answer(race.keep(live.get_run(str(name)), setting))


def _ordered(order: Any) -> RunConfig:
    """An order of one run that may be trained here. Raises OrderError."""
    run_config = files.order_of(order)
    if run_config.race or run_config.combine:
        raise OrderError("This order is a race or a combination already.", "Give the order of one run.", "race")
    space.refuse_training()
    return run_config


def _answer(run: Run) -> dict[str, Any]:
    queue.advance()
    return live.changed(run)


@rights.read(WATCHER, VISITOR, waits=True)
def standing(question: dict[str, Any]) -> Response:
    """A race's table with each setting's order and curves: {rows: [{…, order, curves}], plan}, or {error}."""
    try:
        run = live.run_of(question)
        orders, rows = race.orders(run.config), race.table(run)
    except StudioError as error:
        return live.json_response({"rows": [], "plan": None, "error": error.message})
    for row in rows:
        row["order"] = yaml.safe_load(orders[row["contestant"] - 1].to_yaml())
        row["order"].pop("name", None)
        row["curves"] = _curves(race.contestant(run, row["contestant"]))
    return live.json_response({"rows": rows, "plan": plan.answer(run)})


def _curves(part: Run) -> dict[str, list[list[float]]]:
    """{train, eval}: [[step, loss]…] of a setting, its training losses thinned."""
    lines = compare.curves(part.events())
    thinned = {}
    for name, line in lines.items():
        points = [[step, loss] for step, loss in zip(line["step"], line["loss"], strict=True) if loss is not None]
        thinned[name] = points[:: max(1, -(-len(points) // MOST_POINTS))]
    return thinned
