"""The models to choose from, each with what a device can do with it: the bundled catalogue and this computer's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from studio import model
from studio.base import catalogue, hub
from studio.config import RunConfig
from studio.device import Device
from studio.errors import StudioError
from studio.forecast import fits, record
from studio.forecast.duration import NO_RUNS, Past
from studio.forecast.fits import Fit
from studio.home import subfolder
from studio.memory.studio_loop import RowStatistics
from studio.model import ModelFacts

Row = dict[str, Any]
UNKNOWN: Row = {
    "family": "",
    "kind": "",
    "use": "",
    "licence": None,
    "gated": False,
    "languages": [],
    "thinking": "",
    "template": None,
    "released": None,
}  # of a model on this computer that the catalogue does not know
SHOWN = ("model", *UNKNOWN, "context", "parameters")
NO_SHAPE = ("max_position_embeddings", "architectures")  # keys of a config that change no estimate of the same rows


class Question(NamedTuple):
    """What is asked of every model. order: whose model and method are replaced. rows: of its data, where known."""

    order: RunConfig
    device: Device
    rows: RowStatistics | None = None
    here: bool = False  # whether the device is this computer's, whose finished runs count

    def past(self, config: RunConfig) -> Past:
        return record.past(self.device, config) if self.here else NO_RUNS


class Answer(NamedTuple):
    fits: dict[str, Fit]
    smallest: dict[str, Any] | None


def rows() -> list[Row]:
    """Every model without its answers: those of this computer that the catalogue does not know, then the catalogue."""
    own = {name: folder for name, folder in on_this_computer() if name not in catalogue.entries()}
    known = [
        {key: entry[key] for key in SHOWN} | {"local": _is_cached(name)} for name, entry in catalogue.entries().items()
    ]
    listed = []
    for name, folder in own.items():
        try:
            facts = model.facts(folder)
        except StudioError:  # no model, or a damaged one: the order's own check tells why
            continue
        listed.append(
            {"model": name, **UNKNOWN, "context": facts.context, "parameters": facts.parameters, "local": True}
        )
    return listed + known


def on_this_computer() -> Iterator[tuple[str, Path]]:
    """(name in an order, folder) of the models in the home and of the complete ones in the Hub's cache."""
    from huggingface_hub import constants

    for folder in sorted(subfolder("models").iterdir()):
        if folder.name != "starter" and (folder / "config.json").is_file():
            yield str(folder), folder
    cache = Path(constants.HF_HUB_CACHE)
    for folder in sorted(cache.glob("models--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/")
        snapshot = hub.cached(repo, None)
        if snapshot is not None and (snapshot / "config.json").is_file():
            yield repo, snapshot


def _is_cached(repo: str) -> bool:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    return folder.is_dir() and hub.cached(repo, None) is not None


def facts_of(name: str) -> ModelFacts:
    """Facts of a model of `rows`, from this disk. Raises ModelError."""
    known = model.from_catalogue(name)
    if known is not None:
        return known
    return model.facts(dict(on_this_computer())[name])


def answers(
    names: Iterable[str],
    question: Question,
    spread: Callable[..., Iterable[Answer]] = map,
    known: dict[str, Answer] | None = None,
) -> dict[str, Answer]:
    """The answers by name; models of one shape are answered once. spread: map, or one that uses several processes.

    known: answers to the same question by the model that stands for its shape; those that are new are put in.
    """
    known, entries = {} if known is None else known, catalogue.entries()
    # the model of the catalogue that stands for the shape of each; one that is not in it stands for itself
    standing = {name: _by_shape()[_shape(entries[name])] if name in entries else name for name in names}
    new = [name for name in dict.fromkeys(standing.values()) if name not in known]
    known.update(zip(new, spread(_Answering(question), new), strict=True))
    return {name: _within(known[other], name) for name, other in standing.items()}


@lru_cache(maxsize=1)
def _by_shape() -> dict[str, str]:
    """The model of the longest context for each shape in the catalogue: the rows of the others end earlier."""
    found: dict[str, str] = {}
    for name, entry in sorted(catalogue.entries().items(), key=lambda item: item[1]["context"]):
        found[_shape(entry)] = name
    return found


def _shape(entry: Row) -> str:
    return json.dumps({key: value for key, value in entry["config"].items() if key not in NO_SHAPE}, sort_keys=True)


class _Answering(NamedTuple):
    """A function of a name that another process can be sent."""

    question: Question

    def __call__(self, name: str) -> Answer:
        order, device, rows, _ = self.question
        facts = facts_of(name)
        answers = fits.fits(facts, order, device, rows, self.question.past)
        none = not any(fit.fits for fit in answers.values())
        return Answer(answers, fits.smallest(answers, facts, order, device) if none else None)


def _within(answer: Answer, name: str) -> Answer:
    """The answer with rows no longer than the model's own context."""
    entry = catalogue.entries().get(name)
    if entry is None:
        return answer
    longest = {
        method: fit._replace(max_length=min(fit.max_length, entry["context"])) if fit.max_length else fit
        for method, fit in answer.fits.items()
    }
    return Answer(longest, answer.smallest)


def access(row: Row) -> str | None:
    """How to get into a gated model, in a sentence; None where it is open or here already."""
    if not row["gated"] or row["local"]:
        return None
    return f"Open https://huggingface.co/{row['model']}, accept its terms, and set HF_TOKEN to a token of that account."
