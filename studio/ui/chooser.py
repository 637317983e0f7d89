"""The model chooser of the Tune tab: the catalogue, what a device can do with each model, and a search of the Hub."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

from studio import cards, choice, config, device, places
from studio.base import catalogue
from studio.base.hub import errors, unreachable
from studio.config import RunConfig
from studio.errors import ModelError, StudioError, reason_of
from studio.memory.studio_loop import RowStatistics
from studio.registry import attributes
from studio.text import sandbox
from studio.ui import files, measure, rights, who, words
from studio.ui.singleflight import Unanswered, single_flight
from studio.ui.who import VISITOR, WATCHER

KEPT = 8  # questions
MOST = 12  # models of a question
FOUND = 20  # models of a search
STEP = 512 * 2**20  # bytes; less free memory than that changes no answer of the chooser
MAX_SEARCH_CHARS = 100

_lock = threading.Lock()
_known: OrderedDict[str, dict[str, choice.Answer]] = OrderedDict()


@rights.read(WATCHER, VISITOR, waits=True)
def listing(question: dict[str, Any]) -> dict[str, Any]:
    """{rows, devices}: every model without its answers, and the cards that can be asked about. {lang}."""
    lang = words.language(question.get("lang"))
    rows = [row | {"access": words.translate(choice.access(row) or "", lang) or None} for row in choice.rows()]
    if not who.owns():  # what else lies in the owner's caches is the owner's
        rows = [row for row in rows if row["model"] in catalogue.entries()]
    return {"rows": rows, "devices": [card.name for card in cards.CARDS]}


@rights.read(WATCHER, VISITOR, waits=True)
def fitting(question: dict[str, Any]) -> dict[str, Any]:
    """{device, rows, answers: {model: {fits, smallest}}} of an order as the page holds it: {order, lang, name, ids}.

    name: a known card instead of the device that the order trains on. ids: at most MOST models of the listing.
    """
    names = [str(one) for one in (question.get("ids") or [])[:MOST]]
    order, name = question.get("order"), question.get("name")
    run_config, rows = _asked(order)
    on = cards.device(name) if name else (places.device_of(run_config.place) or device.devices()[0])
    here = not name and not run_config.place.remote
    ask = choice.Question(run_config, on, rows, here)
    return {
        "device": attributes(on, "name", "memory", "free", "kind"),
        "rows": rows.rows if rows else None,
        "answers": _answers(ask, names),
    }


@rights.read(WATCHER, VISITOR, waits=True)
def hub(question: dict[str, Any]) -> dict[str, Any]:
    """{rows, service}: models of the Hub by a word, the most downloaded first; service: who has not answered.

    Waits two seconds at most; the search goes on in the background. For the owner alone, who may fetch one. {search,
    lang}.
    """
    lang, text = words.language(question.get("lang")), str(question.get("search") or "").strip()[:MAX_SEARCH_CHARS]
    if not text or not who.owns():
        return {"rows": [], "service": None}
    try:
        rows = single_flight.ask(("models", text), lambda: _search(text), measure.hub(), wait=2)
    except (Unanswered, ModelError) as error:
        return {"rows": [], "service": words.translate(error.message, lang)}
    return {"rows": [row for row in rows if row["model"] not in catalogue.entries()], "service": None}


def _asked(order: Any) -> tuple[RunConfig, RowStatistics | None]:
    """The order and its rows' lengths; a plain order where it is not valid yet, no rows where they cannot be read."""
    plain = config.build({"data": {"train": "rows.json"}})
    if not measure.names_data(order):
        return plain, None
    try:
        run_config = config.build(order | {"model": "starter"})
        files.allow(run_config)
    except StudioError:
        return plain, None
    try:
        with sandbox.allowance():
            return run_config, measure.rows_of(run_config)
    except StudioError:
        return run_config, None


def _answers(question: choice.Question, names: list[str]) -> dict[str, Any]:
    """The answers by model, as plain data. One question is worked on at a time, and its answers are kept."""
    order = question.order.model_dump(mode="json", exclude_unset=True)
    order["data"] = {"max_length": question.order.data.max_length}
    on = question.device
    listed = catalogue.entries().keys() | ({name for name, _ in choice.on_this_computer()} if who.owns() else set())
    key = json.dumps([order, on.name, on.memory, on.free // STEP, question.rows, question.here])
    with _lock:
        known = _known.setdefault(key, {})
        _known.move_to_end(key)
        while len(_known) > KEPT:
            _known.popitem(last=False)
        found = choice.answers([name for name in names if name in listed], question, known=known)
    return {
        name: {"fits": {method: fit._asdict() for method, fit in answer.fits.items()}, "smallest": answer.smallest}
        for name, answer in found.items()
    }


def _search(text: str) -> list[choice.Row]:
    """Models that write text, of the Hub. Raises ModelError."""
    from huggingface_hub import HfApi

    why = unreachable()
    if why:
        hint = "The catalogue works without it."
        raise ModelError(f"The Hub could not be searched ({why}).", hint, "model", "network")
    try:
        models = list(
            HfApi().list_models(search=text, pipeline_tag="text-generation", filter="safetensors", limit=FOUND)
        )
    except errors() as error:
        hint = "The catalogue works without it."
        raise ModelError(f"The Hub could not be searched ({reason_of(error)}).", hint, "model") from error
    return [
        {
            "model": model.id,
            **choice.UNKNOWN,
            "licence": next((tag[8:] for tag in model.tags or () if tag.startswith("license:")), None),
            "gated": bool(model.gated),
            "context": None,
            "parameters": None,
            "local": False,
            "hub": True,
        }
        for model in models
    ]
