"""What is wrong with an order: pydantic's errors in words, each unknown key or name with the nearest right one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from studio.errors import OrderError
from studio.knob import described
from studio.methods import METHODS
from studio.places import PLACES
from studio.rewards import REWARDS
from studio.stages import STAGES

PLAIN_WORDS = {  # for pydantic's
    r", unable to (interpret input|parse string as an? \w+)": "",
    r"a valid dictionary or instance of \w+": "keys with values",
    r"a valid string": "text",
    r"a valid (tuple|list)": "a list",
}
UNION_TAG = re.compile(
    r"str|int|float|bool|constrained-\w+|[\w-]+\[.*\]"
)  # in pydantic's locations: float, list[Source]
TAGGED: dict[str, tuple[str, Mapping[str, Any]]] = {  # sections of several kinds: the key that names it, and the kinds
    "method": ("name", METHODS),
    "stage": ("name", STAGES),
    "place": ("kind", PLACES),
}


def error(found: ValidationError, root: type[BaseModel]) -> OrderError:
    """All faults of an order in one error. root: the class of the whole order."""
    items = _of_each_value(found.errors())
    faults = [_fault(item, root) for item in items]
    hint = " ".join(dict.fromkeys(hint for _, hint in faults if hint))
    return OrderError(" ".join(message for message, _ in faults), hint, _dotted(items[0]["loc"]))


def _of_each_value(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """pydantic's errors, those of one value as one: a union has one for each of its kinds, and where a value is of one
    of them but for something inside it, only that counts.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        where = _dotted(item["loc"])
        if before := found.get(where):
            before["msg"] += f", or {_expected(item).removeprefix('should ')}"
        else:
            found[where] = dict(item)
    return [item for where, item in found.items() if not any(other.startswith(f"{where}.") for other in found)]


def _dotted(loc: tuple) -> str:
    """pydantic's location without the tags of unions: types, and the kinds of a section or of a reward."""
    tags = TAGGED[loc[0]][1] if loc and loc[0] in TAGGED else {}
    parts = [
        part
        for index, part in enumerate(loc)
        if not (index == 1 and part in tags) and not (index and UNION_TAG.fullmatch(str(part)))
    ]
    return ".".join(
        str(part)
        for index, part in enumerate(parts)
        if not (index and isinstance(parts[index - 1], int) and part in REWARDS)
    )


def _fault(item: Mapping[str, Any], root: type[BaseModel]) -> tuple[str, str]:
    """One pydantic error as (what was found, what would be right)."""
    where, kind, value = _dotted(item["loc"]), item["type"], item.get("input")
    if kind == "extra_forbidden":
        known = list(getattr(_section(item["loc"], root), "model_fields", {}))
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
        return f"Unknown key {where}.", f"Did you mean {near[0]}?" if near else f"Known there: {', '.join(known)}."
    if kind == "missing":
        if where == "place.host":
            return "place.host is missing.", "Name the computer as after ssh: gpu-box or me@203.0.113.7."
        hint = "It says which data to train on: a file, a Hub id or sample."
        return f"{where} is missing.", hint if where in ("data", "data.train") else ""
    if kind in ("union_tag_invalid", "union_tag_not_found") and where == "place":
        return (
            f"There is no place {value.get('kind') if isinstance(value, dict) else value!r}.",
            f"Places: {', '.join(PLACES)}.",
        )
    if kind in ("union_tag_invalid", "union_tag_not_found") and where.startswith("stage.rewards"):
        name = value.get("name") if isinstance(value, dict) else value
        return f"There is no reward {name!r} ({where}).", f"{_nearest(name, REWARDS)}Rewards: {', '.join(REWARDS)}."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _unknown_name(where, value)
    shown = repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "…"
    return f"{where} is {shown}, but {_expected(item)}.", _meaning(item["loc"], root)


def _unknown_name(where: str, value: Any) -> tuple[str, str]:
    """A method or stage that does not exist, or has no name."""
    names = TAGGED[where][1]
    name = value.get("name") if isinstance(value, dict) else value
    if where == "stage" and name is None:
        return "stage has no name.", f"Write it as stage: {{name: dpo, beta: 0.1}}. Stages: {', '.join(names)}."
    suggestion = _nearest(name, names)
    if where == "stage":
        return f"There is no stage {name!r}.", f"{suggestion}Stages: {', '.join(names)}."
    return f"There is no method {name!r}.", f"{suggestion}Methods: {', '.join(names)}."


def _nearest(name: Any, names: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    return f"Did you mean {near[0]}? " if near else ""


def _expected(item: Mapping[str, Any]) -> str:
    text = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    for theirs, ours in PLAIN_WORDS.items():
        text = re.sub(theirs, ours, text)
    return text[0].lower() + text[1:]


def _meaning(loc: tuple, root: type[BaseModel]) -> str:
    """What a key of the order is, as its help says; "" for a key that has none."""
    names = [part for part in loc if not isinstance(part, int) and not UNION_TAG.fullmatch(part)]
    section = _section((*names,), root)
    return described(section).get(names[-1], "") if section and names else ""


def _section(loc: tuple, root: type[BaseModel]) -> Any:
    """The model whose key a location ends in; None where it is not told."""
    kind: Any = root
    for part in loc[:-1]:
        if isinstance(part, int) or UNION_TAG.fullmatch(part):
            continue
        kinds_of_parts = [kinds for _, kinds in TAGGED.values()] + [REWARDS]
        tagged = next((kinds[part] for kinds in kinds_of_parts if part in kinds), None)
        if tagged and not (isinstance(kind, type) and part in getattr(kind, "model_fields", {})):
            kind = tagged
            continue
        field = getattr(kind, "model_fields", {}).get(part)
        if field is None:
            return None
        if part in (*TAGGED, "rewards"):
            continue
        kind = next(_models(field.annotation), None)
    return kind


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a field's type: of X | None, of str | list[X]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
