"""What a row is to each stage: an answer, a pair of answers, an answer with a verdict, or a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from studio.data.dataset import Conversations, Dataset
from studio.data.order import DataOrder
from studio.data.roles import display_text
from studio.errors import DataError, TemplateError
from studio.evaluation.questions import Question, question
from studio.kernels import IGNORE_INDEX
from studio.stages import learning_from
from studio.tokens import Encoded, Encoder

TITLES = {
    "answers": "answers",
    "pairs": "preference data (pairs of answers)",
    "verdicts": "preference data (answers with a verdict)",
    "prompts": "prompts",
}
LOOKED_AT = 20_000  # pairs whose lengths are compared
FEWEST = 5  # pairs whose lengths say anything
BIASED_SHARE = 0.65  # of pairs whose chosen answer is the longer one, from which on it is said


def refuse_other_examples(dataset: Dataset, examples: str) -> None:
    """Raise DataError where a data set's rows are not what the order's stage learns from, naming a stage that does."""
    if dataset.examples == examples or examples == "prompts" and dataset.format != "text":
        return  # whatever has a question is a prompt
    stages, takes = " / ".join(learning_from(dataset.examples)), " / ".join(learning_from(examples))
    hint = f"Set stage to {stages}, or take other data."
    if examples == "answers" and dataset.examples == "pairs":
        hint = (
            f"Set stage to {stages} to learn from both answers, or data.format to chosen to learn the chosen ones "
            "alone."
        )
    elif examples == "answers" and dataset.examples == "verdicts":
        hint = (
            f"Set stage to {stages} to learn from both kinds, or data.format to good to learn the good answers alone."
        )
    raise DataError(
        f"{dataset.source} holds {TITLES[dataset.examples]}; stage {takes} learns from {TITLES[examples]}.",
        hint,
        "data.train",
    )


def refuse_indifferent(sources: Sequence[Conversations], order: DataOrder) -> None:
    """Raise DataError where no pair of all sources has two answers that differ, or all verdicts are the same."""
    rows = chain.from_iterable(sources)
    named = ", ".join(source.source for source in order.sources())
    if order.examples == "pairs" and all(chosen == rejected for chosen, rejected in map(_answers, rows)):
        message = f"In every pair of {named} the chosen and the rejected answer are the same: nothing can be learnt."
        hint = "Take pairs of different answers."
        raise DataError(message, hint, "data.train")
    if order.examples == "verdicts" and len(kinds := _kinds(rows)) < 2:
        good = kinds == {True}
        raise DataError(
            f"All answers of {named} are called {'good' if good else 'bad'}: there is nothing to tell apart.",
            "Set stage to sft and data.format to good to learn them as they are, or add bad answers."
            if good
            else "Add good answers.",
            "data.train",
        )


def _kinds(rows: Iterable[dict[str, Any]]) -> set[bool]:
    """The verdicts among rows, read until both have been found."""
    kinds: set[bool] = set()
    for row in rows:
        kinds.add(bool(row.get("label", True)))
        if len(kinds) > 1:
            break
    return kinds


def encode_examples(
    conversations: list[dict[str, Any]], encoder: Encoder, examples: str
) -> list[Encoded | TemplateError]:
    """Every conversation as a row of the stage: one sequence, or both answers of a pair, one behind the other."""
    if examples == "prompts":
        return [encode_prompt(conversation, encoder) for conversation in conversations]
    first = encoder.encode_each(conversations)
    if examples == "verdicts":
        labels = (bool(conversation.get("label", True)) for conversation in conversations)
        return [
            replace(encoded, good=label) if isinstance(encoded, Encoded) else encoded
            for encoded, label in zip(first, labels, strict=True)
        ]
    if examples != "pairs":
        return first
    second = encoder.encode_each(list(map(rejected_side, conversations)))
    return [joined(chosen, rejected) for chosen, rejected in zip(first, second, strict=True)]


def rejected_side(conversation: dict[str, Any]) -> dict[str, Any]:
    """The conversation that ends with the rejected answer."""
    answer = {"role": "assistant", "content": conversation["rejected"], **conversation.get("rejected_more", {})}
    return {**conversation, "messages": [*conversation["messages"][:-1], answer]}


def _answers(pair: dict[str, Any]) -> tuple[str, str]:
    """The words and calls of the chosen and of the rejected answer."""
    return display_text(pair["messages"][-1]), display_text(rejected_side(pair)["messages"][-1])


def joined(chosen: Encoded | TemplateError, rejected: Encoded | TemplateError) -> Encoded | TemplateError:
    """Both sides of a pair as one row; nothing of it is trained where one side has no token of its answer left."""
    for side in (chosen, rejected):
        if isinstance(side, TemplateError):
            return side
    assert isinstance(chosen, Encoded)
    assert isinstance(rejected, Encoded)
    both = min(chosen.n_trained, rejected.n_trained) > 0
    return Encoded(
        chosen.ids + rejected.ids,
        chosen.labels + [IGNORE_INDEX] + rejected.labels[1:],
        chosen.text,
        chosen.offsets,
        chosen.overflow + rejected.overflow,
        chosen.n_trained + rejected.n_trained if both else 0,
        tuple(dict.fromkeys((*chosen.left_out, *rejected.left_out))),
        second=len(chosen.ids),
    )


def describe(dataset: Dataset) -> dict[str, Any] | None:
    """Of pairs: {"pairs", "longer_chosen" (share), "characters_chosen", "characters_rejected" (means)}; of verdicts:
    {"good", "bad"}; of the first LOOKED_AT rows. None for other data.
    """
    if dataset.examples in ("answers", "prompts"):
        return None
    rows = dataset.conversations.batch(0, LOOKED_AT)
    if dataset.examples == "verdicts":
        good = sum(bool(row.get("label", True)) for row in rows)
        return {"good": good, "bad": len(rows) - good}
    chosen, rejected = np.array([[*map(len, _answers(row))] for row in rows]).T
    return {
        "pairs": len(rows),
        "longer_chosen": round(float(np.mean((chosen > rejected) + 0.5 * (chosen == rejected))), 4),
        "characters_chosen": round(float(chosen.mean())),
        "characters_rejected": round(float(rejected.mean())),
    }


def cautions(figures: dict[str, Any] | None) -> list[str]:
    """Sentences on what of pairs or verdicts a model may learn instead of what is meant. figures: as of `describe`."""
    if figures is None:
        return []
    if "pairs" in figures:
        share = figures["longer_chosen"]
        if 1 - BIASED_SHARE < share < BIASED_SHARE or figures["pairs"] < FEWEST:
            return []
        longer = "longer" if share > 0.5 else "shorter"
        return [
            f"The chosen answer is the {longer} one in {max(share, 1 - share):.0%} of the pairs: the model may learn "
            f"to write {longer} answers instead of better ones. Add pairs whose chosen answer is not, or take dpo with "
            "the loss of a pair (stage.loss) sigmoid_norm or simpo, which count per token."
        ]
    good, bad = figures["good"], figures["bad"]
    if not good or not bad:
        return ["All verdicts are the same: there is nothing to tell apart."]
    if max(good, bad) <= 4 * min(good, bad) / 3:
        return []
    if good < bad:
        return [
            f"There are {good} good and {bad} bad answers: a weight of good answers (stage.desirable_weight) of "
            f"{bad / good:.2g} would balance them."
        ]
    return [
        f"There are {good} good and {bad} bad answers: a weight of bad answers (stage.undesirable_weight) of "
        f"{good / bad:.2g} would balance them."
    ]


def contradictions(conversations: Conversations) -> list[tuple[int, int]]:
    """(index, index of an earlier row) of pairs whose two answers stand the other way round in the earlier one, and of
    answers whose verdict is the opposite there.
    """
    earlier: dict[tuple[Any, ...], int] = {}
    found = []
    for index, row in enumerate(conversations.batch(0, LOOKED_AT)):
        *prompt, answer = row["messages"]
        texts = [*map(display_text, prompt)]
        told, opposite = (hash((*texts, display_text(answer))), row.get("label")), None
        if "rejected" in row:
            told = (told[0], hash((*texts, _answers(row)[1])))
            opposite = told[::-1] if told[0] != told[1] else None
        elif "label" in row:
            opposite = (told[0], not row["label"])
        if opposite in earlier:
            found.append((index, earlier[opposite]))
        earlier.setdefault(told, index)
    return found


def asked_of(conversation: dict[str, Any]) -> Question | None:
    """The question of a row, and its own answer; None for plain text."""
    found = question(conversation, last=True)
    if found is not None:
        return found._replace(reference=conversation.get("reference") or found.reference)
    messages = conversation.get("messages") or []
    if not messages or messages[-1]["role"] == "assistant":
        return None
    text = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    return Question(text, messages, conversation.get("reference") or "", conversation.get("tools") or None)


def encode_prompt(conversation: dict[str, Any], encoder: Encoder) -> Encoded | TemplateError:
    """A row's prompt, up to the opening of the answer, without labels; TemplateError where there is none."""
    asked = asked_of(conversation)
    if asked is None:
        return TemplateError("The row holds no question.", "Give rows with a question each.", "data.train")
    try:
        ids = encoder.prompt_ids(asked.messages, **asked.variables)
    except TemplateError as error:
        return error
    overflow = max(0, len(ids) - encoder.max_length) if encoder.max_length else 0
    return Encoded(
        ids, [IGNORE_INDEX] * len(ids), "", [], overflow, len(ids), question=json.dumps(asked._asdict(), default=str)
    )
