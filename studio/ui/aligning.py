"""On a finished run's page: one click teaches it which answers to prefer, where there is data for it."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from studio import data, origin, preflight, queue, scoring
from studio.config import RunConfig
from studio.errors import OrderError, StudioError
from studio.stages import STAGES, learning_from
from studio.ui import files, live, rights, space, words
from studio.ui.who import VISITOR, WATCHER

LOOKED_AT = 24  # uploads, the newest first
MOST_ANSWERS, MOST_CHARACTERS = 8, 100_000  # that are scored at once
LARGEST = 200_000_000  # bytes of an upload that is looked into


@rights.job(waits=True)
def align(name: str, file: str) -> dict[str, Any]:
    """Queue a run that teaches a finished one a file of preferences, by the stage's defaults. Returns {run, state}."""
    order = _order(name, file)
    space.refuse_training()
    preflight.check(order)
    return live.changed(queue.submit(order))


@rights.job(waits=True)
def score_answers(name: str, question: str, answers: list[str]) -> dict[str, Any]:
    """What a reward model makes of some answers to a question: {scores}. It takes some seconds."""
    texts = answers if isinstance(answers, list) else []
    if not 0 < len(texts) <= MOST_ANSWERS or not all(
        isinstance(text, str) and text.strip() for text in [question, *texts]
    ):
        hint = "Write them and ask again."
        raise OrderError(f"A question and one to {MOST_ANSWERS} answers are scored, each a text.", hint, "answers")
    if sum(map(len, [question, *texts])) > MOST_CHARACTERS:
        hint = "Shorten them."
        raise OrderError(f"The question and answer have more than {MOST_CHARACTERS} characters.", hint, "answers")
    return {"scores": scoring.score_answers(live.get_run(name), question, texts)}


@rights.read(WATCHER, VISITOR, waits=True)
def preferences(question: dict[str, Any]) -> dict[str, Any]:
    """{id, lang} -> {sources: [{source, name, stage, label}], fault}: preference data among the uploads."""
    run, lang = live.run_of(question), words.language(question.get("lang"))
    found: list[dict[str, Any]] = []
    small = (path for path in files.uploads() if path.stat().st_size <= LARGEST)
    for path in islice(small, LOOKED_AT):
        examples = _examples(path, path.stat().st_mtime_ns)
        if examples in ("pairs", "verdicts"):
            stage = learning_from(examples)[0]
            found.append({"source": str(path), "name": path.name, "stage": stage, "label": STAGES[stage].label})
    fault = None
    if found:
        try:
            origin.check(_order(run.id, found[0]["source"]))
        except StudioError as error:
            fault = words.explain(error, lang)
    return {"sources": found[:3], "fault": fault}


@rights.read(WATCHER, VISITOR, waits=True)
def alignment(question: dict[str, Any]) -> dict[str, Any]:
    """{id, name (of the file)} -> {order}: the order of `align`, to be looked at first."""
    order = _order(str(question.get("id", "")), str(question.get("name", "")))
    return {"order": order.model_dump(mode="json", exclude_unset=True)}


def _order(name: str, file: str) -> RunConfig:
    files.allow_data(file)  # before it is read
    order = origin.order_after(live.get_run(name), file)
    files.allow(order)
    return order


@lru_cache(maxsize=256)
def _examples(path: Path, changed: int) -> str:
    """What an upload holds, as Dataset.examples; empty where it cannot be read. changed: its time, for the cache."""
    try:
        return data.read(path).examples
    except StudioError:
        return ""
