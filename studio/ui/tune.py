"""The Tune tab: model, data, method and settings, beside a summary that stays in view. Drawn by static/tune.js."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from studio import config, data, queue, reward_trial, run, template
from studio.base import source
from studio.data.formats import formats
from studio.errors import OrderError, StudioError
from studio.home import subfolder
from studio.presets import PRESETS, applied
from studio.ui import elsewhere, files, rights, words
from studio.ui.files import SUGGESTED
from studio.ui.tune_form import form
from studio.ui.tune_summary import summary
from studio.ui.who import VISITOR, WATCHER

TRIED_ROWS = 4  # whose prompts the base answers


@rights.read(WATCHER, VISITOR)
def offer(question: dict[str, Any]) -> dict[str, Any]:
    """What the form is made of, and the order a first visit begins with: the sample, the starter, LoRA."""
    samples = data.samples()
    first = {"model": "starter", "data": {"train": f"sample:{samples[0]['name']}"}, "method": {"name": "lora"}}
    return {
        "form": form(),
        "samples": samples,
        "uploads": uploads(),
        "models": models(),
        "presets": [goal._asdict() for goal in PRESETS.values()],
        "templates": ["auto", "model", *template.names()],
        "formats": ["auto", *formats()],
        "devices": elsewhere.offer(),
        "first": first,
    }


@rights.read(WATCHER, VISITOR, waits=True)
def look(question: dict[str, Any]) -> dict[str, Any]:
    """The summary of an order: {order, lang, name} as the page holds it; name: another device to look at."""
    return summary(question.get("order"), words.language(question.get("lang")), question.get("name"))


@rights.read(WATCHER, VISITOR)
def preset(question: dict[str, Any]) -> dict[str, Any]:
    """An order with a preset on it: {order, name}; an unknown preset changes nothing."""
    order, name = question.get("order") or {}, question.get("name")
    return {"order": applied(name, order) if name in PRESETS else order}


@rights.read(WATCHER, VISITOR)
def write(question: dict[str, Any]) -> dict[str, Any]:
    """The order as YAML: {order, lang}. What is not valid yet is written as it stands."""
    import yaml

    order = question.get("order") or {}
    try:
        return {"yaml": config.build(order).to_yaml()}
    except StudioError:
        return {"yaml": yaml.safe_dump(order, sort_keys=False, allow_unicode=True)}


@rights.read(WATCHER, VISITOR)
def read(question: dict[str, Any]) -> dict[str, Any]:
    """The order in a YAML text as a plain object: {yaml, lang}; or {error}."""
    lang = words.language(question.get("lang"))
    text = str(question.get("yaml", ""))
    try:
        if len(text) > files.MAX_TEXT_CHARS:
            hint = "Data stands in a file of its own; an order only names it."
            raise OrderError("The order is too long.", hint, "yaml")
        run_config = config.parse(text)
    except StudioError as error:
        return {"error": words.explain(error, lang)}
    return {
        "order": run_config.model_dump(mode="json", exclude_unset=True)
        | {"method": run_config.method.model_dump(mode="json", exclude_unset=True)}
    }


def uploads() -> list[dict[str, Any]]:
    """Files that were uploaded before, the newest first."""
    newest = islice(files.uploads(), 100)
    return [{"name": path.name, "source": str(path), "bytes": path.stat().st_size} for path in newest]


def _users(file: Path) -> list[run.Run]:
    """The runs whose data are, or were, a file."""
    return [one for one in run.runs() if file.resolve() in map(Path.resolve, files.paths_of(one.config))]


@rights.read(WATCHER, VISITOR)
def upload_users(question: dict[str, Any]) -> dict[str, Any]:
    """{source} -> {runs}: the names of the runs that an upload was the data of; none of any other file."""
    file = next((path for path in files.uploads() if str(path) == question.get("source")), None)
    return {"runs": [one.id for one in _users(file)] if file else []}


@rights.job()
def delete_upload(source: str) -> dict[str, Any]:
    """Delete a file among the uploads; returns {source}. Raises OrderError for any other, and where a run needs it."""
    file = Path(files.text_of(source, "source"))
    if not files.is_upload(file):
        raise OrderError(f"{source} is no upload of this studio.", "Choose a file under Yours.", "source")
    for one in _users(file):
        if not queue.over(one):
            hint = "Stop that run, or wait for it."
            raise OrderError(f"{file.name} is the data of {one.id}, which has not ended.", hint, "source")
    file.unlink()
    return {"source": source}


def models() -> list[dict[str, Any]]:
    """Models to offer: the starter, folders in home, and small ones of the Hub that many people take."""
    here = [
        {"source": str(folder), "label": folder.name, "local": True}
        for folder in sorted(subfolder("models").iterdir())
        if (folder / "config.json").is_file() and folder.name != "starter"
    ]
    known = [{"source": name, "label": name, "local": False} for name in SUGGESTED]
    return [
        {"source": "starter", "label": "SmolLM2-135M-Instruct", "local": source.local(source.ModelOrder()) is not None},
        *here,
        *known,
    ]


@rights.read(WATCHER, VISITOR, waits=True)
def rewards_on_data(question: dict[str, Any]) -> dict[str, Any]:
    """What an order's rewards give the answers in the data: {order, lang} -> as reward_trial.trial returns it.

    Only rules are tried so: a question changes nothing, runs no program and asks no other address.
    """
    run_config = config.build(question.get("order") or {})
    files.allow(run_config)
    reward_trial.check(run_config)
    if not reward_trial.is_plain(run_config):
        message = "A model, a judge or a program among the rewards is tried by the owner alone."
        hint = "Let the base answer, or take that reward away for the trial."
        raise OrderError(message, hint, "stage.rewards")
    return reward_trial.trial(run_config, "data")


@rights.job(waits=True)
def try_rewards(order: str) -> dict[str, Any]:
    """Let an order's base answer some prompts and give rewards, in about a minute, as reward_trial.trial does."""
    return reward_trial.trial(files.order_of(order), "base", TRIED_ROWS)
