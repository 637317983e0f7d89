"""The bundled catalogue: models that people tune, with what their config.json and tensors say. No network, no weights.

catalogue.json: {sources, models: [{model, family, kind, use, licence, gated, languages, thinking, context, template,
released, parameters, from, config, shapes?}]}. `from` names the sources a model's facts were read from; `shapes` holds
the tensors of families that families.py does not know, those of all layers in one line. `python -m tests.catalogue`
checks it against transformers and refreshes it from the Hub.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from studio import json_text
from studio.base import families
from studio.base.headers import KINDS, Headers

FILE = Path(__file__).with_name("catalogue.json")
Entry = dict[str, Any]


@lru_cache(maxsize=1)
def entries() -> dict[str, Entry]:
    """Every entry by its Hub id, in the order of the file."""
    return {entry["model"]: entry for entry in json_text.read(FILE.read_text(encoding="utf-8"), FILE.name)["models"]}


def headers(model: str) -> Headers | None:
    """(config, tensors) of a model of the catalogue; None for any other."""
    entry = entries().get(model)
    if entry is None:
        return None
    config = entry["config"]
    dtype = KINDS[families.text_config(config)["dtype"]]
    shapes = expanded(entry["shapes"]) if "shapes" in entry else families.tensors(families.completed(config))
    return config, {name: (dtype, tuple(shape)) for name, shape in (shapes or {}).items()}


def expanded(lines: dict[str, list[Any]]) -> dict[str, list[int]]:
    """Tensor name -> shape, layer after layer. lines: name -> shape; with a # for the layer -> [layers, shape]."""
    shapes: dict[str, list[int]] = {}
    for stem, group in groupby(lines.items(), lambda line: line[0].partition("#")[0] if "#" in line[0] else None):
        if stem is None:
            shapes |= dict(group)
            continue
        rows = list(group)
        for number in range(rows[0][1][0]):
            shapes |= {name.replace("#", str(number)): shape for name, (_, shape) in rows}
    return shapes
