"""The form of the Tune tab, derived from the pydantic fields: a knob for every field, and no list of them by hand."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from studio.base.source import ModelOrder
from studio.data.order import DataOrder
from studio.evaluation.order import EvaluationOrder
from studio.knob import GROUPS
from studio.methods import METHODS
from studio.places import PLACES
from studio.registry import attributes
from studio.rewards import REWARDS
from studio.stage import METRICS
from studio.stages import STAGES
from studio.training import Training

Knob = dict[str, Any]
# fields that the cards themselves or the Data tab draw, and those that only the YAML has
HIDDEN = {
    "data": ("train", "problems", "mapping"),
    "model": ("source",),
    "evaluation": ("json_schema",),
    "rewards": ("name", "json_schema", "prompt"),
}
FIRST = {"pattern": "^Answer:", "at_most": 400}  # of a reward that cannot do without


def form() -> dict[str, Any]:
    """The groups; every knob of every section; stages, rewards, methods and places with theirs; a stage's metrics."""
    return {
        "groups": [{"name": name, "title": title} for name, title in GROUPS.items()],
        "model": knobs(ModelOrder, HIDDEN["model"]),
        "data": knobs(DataOrder, HIDDEN["data"]),
        "training": knobs(Training),
        "evaluation": knobs(EvaluationOrder, HIDDEN["evaluation"]),
        "stages": [
            {
                "name": name,
                **attributes(kind, "label", "about", "advice", "rate_scale"),
                "knobs": knobs(kind, ("name", "rewards")),
            }
            for name, kind in STAGES.items()
        ],
        "rewards": [
            {
                "name": name,
                **attributes(kind, "label", "about"),
                "first": {key: value for key, value in FIRST.items() if key in kind.model_fields},
                "knobs": knobs(kind, HIDDEN["rewards"]),
            }
            for name, kind in REWARDS.items()
        ],
        "metrics": METRICS,
        "methods": [
            {
                "name": name,
                **attributes(kind, "label", "about", "advice"),
                "rate": kind.learning_rate,
                "knobs": knobs(kind, ("name",)),
            }
            for name, kind in METHODS.items()
        ],
        "places": [
            {"kind": kind, **attributes(place, "label", "about"), "knobs": knobs(place, ("kind",))}
            for kind, place in PLACES.items()
        ],
    }


def knobs(model: type[BaseModel], without: tuple[str, ...] = ()) -> list[Knob]:
    """A knob for each field of a model, in the order of declaration."""
    schema = model.model_json_schema()
    return [
        knob(key, field, schema.get("$defs", {})) for key, field in schema["properties"].items() if key not in without
    ]


def knob(key: str, field: dict[str, Any], definitions: dict[str, Any]) -> Knob:
    """One field of a JSON schema as {key, title, help, kind, default, advanced, group, …}.

    kind: switch, choice, integer, number, text or list. auto: "auto" is a value too. empty: it may be left out.
    """
    control: Knob = {
        "key": key,
        "title": field.get("title", key),
        "help": field.get("description", ""),
        "default": field.get("default"),
        "advanced": bool(field.get("advanced")),
        "group": field.get("group"),
    }
    if "choices" in field:
        control["suggestions"] = field["choices"]
    kinds = [definitions.get(kind.get("$ref", "").rsplit("/", 1)[-1], kind) for kind in field.get("anyOf", [field])]
    control["empty"] = any(kind.get("type") == "null" for kind in kinds)
    control["auto"] = any(kind.get("const") == "auto" for kind in kinds)
    kinds = [kind for kind in kinds if kind.get("type") != "null" and kind.get("const") != "auto"]
    return control | _shape(control, kinds)


def _shape(control: Knob, kinds: list[dict[str, Any]]) -> Knob:
    """What kind of control a field wants, and its bounds."""
    types = [kind.get("type") for kind in kinds]
    first = kinds[0] if kinds else {"type": "string"}
    if types == ["boolean"]:
        return {"kind": "choice", "choices": ["auto", True, False]} if control["auto"] else {"kind": "switch"}
    if "enum" in first:
        return {"kind": "choice", "choices": list(first["enum"])}
    if "array" in types and "string" not in types:
        item = first.get("items", {})
        return {"kind": "list", "choices": item.get("enum"), "most": first.get("maxItems")}
    if "string" in types or "array" in types:
        return {"kind": "text", "numeric": "number" in types}
    number = next((kind for kind in kinds if kind.get("type") in ("integer", "number")), None)
    if number is None:
        return {"kind": "text"}
    bounds = {
        "least": number.get("minimum", number.get("exclusiveMinimum")),
        "most": number.get("maximum", number.get("exclusiveMaximum")),
    }
    return {"kind": number["type"], **bounds}
