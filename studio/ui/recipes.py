"""The recipe gallery of the Tune tab: each recipe with what it takes on this computer."""

from __future__ import annotations

from typing import Any

from studio import config, device
from studio.base import source
from studio.errors import StudioError
from studio.forecast import record
from studio.recipes import RECIPES, Recipe
from studio.text import sandbox
from studio.ui import measure, rights
from studio.ui.singleflight import Unanswered
from studio.ui.who import VISITOR, WATCHER


@rights.read(WATCHER, VISITOR, waits=True)
def recipes(question: dict[str, Any]) -> dict[str, Any]:
    """{recipes: [{name, title, about, expect, order, rows, local, total, fits, seconds}]}; None: not known here."""
    return {"recipes": [recipe._asdict() | _expected(recipe) for recipe in RECIPES.values()]}


def _expected(recipe: Recipe) -> dict[str, Any]:
    order, here = config.build(recipe.order), device.devices()[0]
    answer = {
        "local": source.local(order.model) is not None,
        "total": None,
        "fits": None,
        "seconds": None,
        "rows": None,
    }
    try:
        with sandbox.allowance():
            answer["rows"] = measure.read(order.data.sources()[0].source, order).rows
            rows = measure.rows_of(order)
        facts = measure.facts_of(order)
        if facts is not None:
            found = record.forecast(facts, order, here, rows)
            answer |= {"total": found.total, "fits": found.fits, "seconds": found.seconds}
    except (StudioError, Unanswered):  # told once it is opened
        pass
    return answer
