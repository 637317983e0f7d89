"""Lengths in tokens of an order's rows, counted with the model's tokenizer and template; cached by their inputs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from studio import data, estimate, model, new_tokens, template
from studio.base import source, starter
from studio.config import RunConfig
from studio.data.examples import encode_examples
from studio.data.splitting import num_held_out
from studio.errors import ModelError, StudioError, TemplateError
from studio.memory.studio_loop import RowStatistics
from studio.text import sandbox
from studio.tokens import Encoder
from studio.ui.singleflight import Unanswered, single_flight

if TYPE_CHECKING:
    from studio.data import Conversations

BYTES_PER_TOKEN = 3  # of a row as JSON, where no tokenizer is here to count: rather too many tokens than too few
SAMPLE_ROWS = 4000  # rows; of more, so many spread evenly are counted and the rest is taken to be like them


@dataclass(frozen=True)
class Lengths:
    """Per counted row: its tokens and its labels, before any cut.

    of: usable rows in all. noted: what template and model make of them. texts: whether rows are plain texts, which can
    be split.
    """

    tokens: np.ndarray
    trained: np.ndarray
    of: int
    noted: data.TemplateProblems
    context: int | None  # tokens the model reads
    texts: bool = False
    unseen: tuple[str, ...] = ()  # tokens of data.new_tokens that no row holds

    @property
    def why(self) -> tuple[str, str]:
        """(reason, hint) of the first row that the template could not render."""
        return next(((one.reason, one.hint) for one in self.noted.problems if one.kind == "unrenderable"), ("", ""))

    def rows(self, max_length: int, held_out: int, split: bool = False) -> RowStatistics:
        """What the estimate needs, scaled to all rows but those held out. split: long texts are split, not cut."""
        cut = np.minimum(self.tokens, max_length)
        if split and self.texts:
            whole, rest = np.divmod(self.tokens, max_length)
            cut = np.concatenate((np.full(int(whole.sum()), max_length), rest[rest > 0]))
        factor = max(0, self.of - held_out) / max(1, len(self.tokens))
        share = float(self.trained.sum()) / max(1.0, float(self.tokens.sum()))
        total = int(cut.sum() * factor)
        count = self.of - held_out if not split or not self.texts else round(len(cut) * factor)
        return RowStatistics(
            max(1, count), max(1, total), max(1, int(total * share)), int(cut.max(initial=1)), held_out
        )


def names_data(order: Any) -> bool:
    """Whether a plain order names training data (or something invalid in its place)."""
    chosen = order.get("data") if isinstance(order, dict) else None
    return bool(chosen.get("train")) if isinstance(chosen, dict) else chosen is not None


def folder_of(run_config: RunConfig) -> Path | None:
    """The folder whose tokenizer counts: the ordered model's if it is here, else the starter's, else None."""
    return source.local(run_config.model) or starter.ready()


def encoder(run_config: RunConfig, folder: Path, max_length: int | None = None) -> Encoder:
    """The order's encoder. Raises TemplateError."""
    return Encoder.from_order(run_config.data.model_copy(update={"max_length": max_length}), folder)


def lengths(run_config: RunConfig, dataset: data.Dataset) -> Lengths | None:
    """Lengths of the rows that the decisions keep; None without a tokenizer. Raises TemplateError, DataError."""
    folder = folder_of(run_config)
    if folder is None:
        return None
    examples = run_config.data.examples if run_config.data.examples in (dataset.examples, "prompts") else "answers"
    decisions = tuple(sorted(run_config.data.problems.items()))
    return _lengths(
        _Key(
            dataset,
            dataset.fingerprint,
            decisions,
            str(folder),
            run_config.data.template,
            run_config.data.train_on if examples == "answers" else "last",
            run_config.data.reasoning,
            run_config.data.new_tokens,
            examples,
        )
    )


class _Key:
    """Hashed by what the lengths depend on; carries the read data beside it."""

    def __init__(self, dataset: data.Dataset, *rest: Any):
        self.dataset, self.rest = dataset, rest

    def __hash__(self) -> int:
        return hash(self.rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.rest == other.rest


@lru_cache(maxsize=16)
def _lengths(key: _Key) -> Lengths:
    _, decisions, folder, name, train_on, reasoning, added, examples = key.rest
    conversations = key.dataset.decide(dict(decisions)).conversations
    row_encoder = Encoder(
        folder, template.load(name, new_tokens.tokenizer_folder(folder, added)), None, "cut", train_on, reasoning, added
    )
    tokens, trained, seen, noted = [], [], set(), data.TemplateProblems()
    for batch in _spread(conversations):
        if sandbox.spent():  # what is left would be counted as failed
            hint = "Choose another template."
            raise TemplateError("The template takes too long for these rows.", hint, "data.template")
        for row, found in zip(batch, encode_examples(batch, row_encoder, examples), strict=True):
            noted.check(row, found, row_encoder)
            if not isinstance(found, TemplateError):
                tokens.append(len(found.ids))
                trained.append(found.n_trained)
                seen.update(found.ids)
    return Lengths(
        np.array(tokens, np.int64),
        np.array(trained, np.int64),
        len(conversations),
        noted,
        row_encoder.context_length,
        key.dataset.format == "text",
        tuple(row_encoder.unseen_tokens(seen)) if len(conversations) <= SAMPLE_ROWS else (),
    )


def _spread(conversations: Conversations, batch: int = 250) -> Any:
    """At most SAMPLE_ROWS conversations, evenly over the file, a batch at a time."""
    count = len(conversations)
    indices = list(range(count)) if count <= SAMPLE_ROWS else [n * count // SAMPLE_ROWS for n in range(SAMPLE_ROWS)]
    for start in range(0, len(indices), batch):
        yield list(conversations.take(indices[start : start + batch]))


def text_of(conversation: dict[str, Any]) -> Any:
    """What was said: the messages, or the plain text."""
    return conversation["text"] if "text" in conversation else conversation["messages"]


def rows_of(run_config: RunConfig) -> RowStatistics:
    """What an estimate wants to know of an order's data, guessed while no tokenizer is here. Raises DataError."""
    found = [read(one.source, run_config) for one in run_config.data.sources()]
    counted = lengths(run_config, found[0]) or _guessed(run_config, found[0])
    usable = sum(
        len(one.decide(run_config.data.problems).conversations) * item.weight
        for one, item in zip(found, run_config.data.sources(), strict=True)
    )
    held, split = held_out(run_config, usable), run_config.data.too_long == "split"
    statistics = counted.rows(run_config.data.max_length * run_config.stage.sequences, held, split)
    return statistics if split and counted.texts else statistics._replace(rows=max(1, round(usable) - held))


def _guessed(run_config: RunConfig, dataset: data.Dataset) -> Lengths:
    """Lengths by the rows' bytes."""
    conversations = dataset.decide(run_config.data.problems).conversations
    sizes = [len(orjson.dumps(row)) for batch in _spread(conversations) for row in batch]
    tokens = np.array(sizes, np.int64) // BYTES_PER_TOKEN + 1
    return Lengths(tokens, tokens, len(conversations), data.TemplateProblems(), None, dataset.format == "text")


def held_out(run_config: RunConfig, usable: float) -> int:
    """Rows that the ordered share keeps apart."""
    share = run_config.data.eval if isinstance(run_config.data.eval, float | int) else 0.0
    return num_held_out(round(usable), share, run_config.data.eval_rows)


def facts_of(run_config: RunConfig) -> model.ModelFacts | None:
    """The facts of the ordered model, here or on the Hub; None where it does not answer. Raises ModelError."""
    folder = source.check(run_config.model)
    if folder is not None:
        return estimate.grown(model.facts(folder), run_config)
    try:
        return estimate.grown(
            single_flight.ask(("model", run_config.model), lambda: model.facts_of(run_config.model), hub()), run_config
        )
    except (ModelError, Unanswered):
        return None


def unanswered_by(run_config: RunConfig) -> str | None:
    """The service that a question about the ordered model waits for, in a sentence; None where none does."""
    if source.local(run_config.model) is not None:
        return None
    try:
        single_flight.ask(("model", run_config.model), lambda: model.facts_of(run_config.model), hub(), wait=0)
    except Unanswered as error:
        return str(error)
    except StudioError as error:
        return str(error) if error.reason == "network" and not os.environ.get("HF_HUB_OFFLINE") else None
    return None


def read(source: str, run_config: RunConfig) -> data.Dataset:
    """A source of an order, read. One on the Hub is fetched in the background; raises Unanswered while that lasts."""
    if not data.is_local(source):
        single_flight.ask(("data", source), lambda: data.locate(source), hub(), wait=10)
    return data.read_for(run_config.data, source)


def hub() -> str:
    """The Hub, with its address, for a sentence."""
    from huggingface_hub import constants

    return f"The Hub ({constants.ENDPOINT})"
