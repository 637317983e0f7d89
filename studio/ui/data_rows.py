"""Rows of a data set: some of them in short, and one in full, as text and as the tokens it will be trained on."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from studio import data
from studio.config import RunConfig
from studio.data.examples import rejected_side
from studio.data.roles import display_text
from studio.errors import StudioError
from studio.kernels import IGNORE_INDEX
from studio.registry import attributes
from studio.tokens import Encoder
from studio.ui import measure, words

PAGE = 20  # rows in an answer
SHORT = 160  # characters of a cell
MAX_PREVIEW_TOKENS = 6000  # tokens of a preview


def page_of(dataset: data.Dataset, start: int, search: str, kind: str) -> dict[str, Any]:
    """PAGE rows from `start` on, of all usable ones, of those that hold a text, or of those with a kind of problem."""
    conversations, numbers = dataset.conversations, dataset.conversations.row_numbers
    chosen = np.arange(len(conversations))
    if kind:
        chosen = chosen[np.isin(numbers, dataset.by_kind.get(kind, np.empty(0, np.int64)))]
    if search:
        chosen = chosen[_holding(conversations.table, search)[chosen]]
    shown = chosen[start : start + PAGE]
    faults: dict[int, list[str]] = {}
    for problem in dataset.problems:
        faults.setdefault(problem.row, []).append(problem.kind)
    return {"count": len(chosen), "rows": [_short(conversations[int(n)], faults) for n in shown]}


def _holding(table: pa.Table, search: str) -> np.ndarray:
    """Whether one of its texts holds the search, whatever the case, for each conversation."""
    found = [np.zeros(0, bool)]
    for part in table.column("messages").chunks:  # combined they would be copied: a million rows are a gigabyte
        hits = pc.fill_null(
            pc.match_substring(pc.struct_field(pc.list_flatten(part), "content"), search, ignore_case=True), False
        )
        contains = np.zeros(len(part), bool)
        contains[pc.list_parent_indices(part).to_numpy(zero_copy_only=False)[hits.to_numpy(zero_copy_only=False)]] = (
            True
        )
        found.append(contains)
    return np.concatenate(found)


def _short(conversation: dict[str, Any], faults: dict[int, list[str]]) -> dict[str, Any]:
    messages = measure.text_of(conversation)
    if isinstance(messages, str):
        asked, answered = "", messages
    else:
        asked = next((turn["content"] for turn in messages if turn["role"] == "user"), "")
        answered = next((turn["content"] for turn in reversed(messages) if turn["role"] == "assistant"), "")
    return {
        "row": conversation["row"],
        "line": conversation.get("line"),
        "asked": asked[:SHORT],
        "answered": answered[:SHORT],
        "turns": 1 if isinstance(messages, str) else len(messages),
        "kinds": faults.get(conversation["row"], []),
    }


def explained(problem: data.Problem, lang: str) -> dict[str, Any]:
    """A problem of a row in the reader's language: {kind, value, field, reason, hint}."""
    said = {name: words.translate(getattr(problem, name), lang) for name in ("reason", "hint")}
    return attributes(problem, "kind", "value", "field") | said


def preview_of(run_config: RunConfig, dataset: data.Dataset, row: int, lang: str) -> dict[str, Any]:
    """A row by its number, and its neighbours' numbers. A refused row comes with its problems alone."""
    numbers = dataset.conversations.row_numbers
    index = int(np.searchsorted(numbers, row))
    problems = [explained(problem, lang) for problem in dataset.problems if problem.row == row]
    answer = {"row": row, "problems": problems, "before": int(numbers[index - 1]) if index else None, "after": None}
    here = index < len(numbers) and numbers[index] == row
    following = index + 1 if here else index
    answer["after"] = int(numbers[following]) if following < len(numbers) else None
    if not here:
        return answer | {
            "refused": True,
            "line": next((problem.line for problem in dataset.problems if problem.row == row), None),
        }
    conversation = dataset.conversations[index]
    answer |= {"line": conversation.get("line"), **conversation_of(conversation)}
    try:
        return answer | tokens_of(run_config, conversation, dataset.examples)
    except StudioError as error:
        return answer | {"fault": words.explain(error, lang)}


def conversation_of(conversation: dict[str, Any]) -> dict[str, Any]:
    """{"text_only", "conversation"}: the turns with their words and calls; a plain text is one turn. "other": the
    rejected answer of a pair; "good": the verdict of an answer.
    """
    messages = measure.text_of(conversation)
    compared = (
        {"other": display_text(rejected_side(conversation)["messages"][-1])} if "rejected" in conversation else {}
    )
    return (
        compared
        | ({"good": bool(conversation["label"])} if "label" in conversation else {})
        | {
            "text_only": isinstance(messages, str),
            "conversation": [{"role": "text", "content": messages}]
            if isinstance(messages, str)
            else [{"role": turn["role"], "content": display_text(turn)} for turn in messages],
        }
    )


def tokens_of(run_config: RunConfig, conversation: dict[str, Any], examples: str = "answers") -> dict[str, Any]:
    """The tokens as [text, trained], those that end a turn, and where the cut falls; of a pair also "rejected", the
    same of its other side. examples: as Dataset.examples.
    """
    folder = measure.folder_of(run_config)
    if folder is None:
        return {"tokens": None}
    encoder = measure.encoder(run_config, folder)
    if examples != "answers":
        encoder.train_on = "last"  # as the stages that compare answers do
    shown = _encoded(encoder, run_config, conversation)
    if "rejected" in conversation:
        shown["rejected"] = _encoded(encoder, run_config, rejected_side(conversation))
    return shown


def _encoded(encoder: Encoder, run_config: RunConfig, conversation: dict[str, Any]) -> dict[str, Any]:
    encoded = encoder.encode(conversation)
    shown_tokens, ends, at = [], [], 0
    stops = [
        match.span() for stop in encoder.template.stop_strings for match in re.finditer(re.escape(stop), encoded.text)
    ]
    for n, ((_, end), label) in enumerate(zip(encoded.offsets[:MAX_PREVIEW_TOKENS], encoded.labels, strict=False)):
        # what a tokenizer skips belongs to the token after it
        shown_tokens.append([encoded.text[at:end], int(label != IGNORE_INDEX)])
        if label != IGNORE_INDEX and any(first < end and at < last for first, last in stops):
            ends.append(n)
        at = max(at, end)
    return {
        "tokens": shown_tokens,
        "ends": ends,
        "count": len(encoded.ids),
        "trained": encoded.n_trained,
        "limit": run_config.data.max_length,
        "text": encoded.text[:100_000],
        "template": encoder.template.name,
        "stop": encoder.template.stop_strings,
        "shown": len(shown_tokens),
        "caution": encoder.end_of_turn_warning(),
        "note": encoder.new_tokens_note(),
    }
