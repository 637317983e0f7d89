"""python -m studio.worker.evaluate ORDER.json: base and tuned model on the same held-out rows, losses and answers.

Prints a JSON object a line: {kind: doing, loss, forgetting, answer, note}. Answers come from the chat's own continuous
batching; an answer that has no room halves the batch and is begun again. Adapters answer beside their base, in turns of
a few questions, so that what has been answered is always of both; full weights are loaded one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from studio import device
from studio.data.text_split import split_row
from studio.errors import StudioError
from studio.evaluation.results import SIDES
from studio.kernels import IGNORE_INDEX
from studio.talk.reference import ModelReference, resolve
from studio.tokens import Encoded, Encoder
from studio.worker import memory
from studio.worker.forgetting import AfterTraining
from studio.worker.generate import Answer, Batch
from studio.worker.lines import emit, run_on_order
from studio.worker.loaded import LoadedModel, LoadedModels
from studio.worker.loss import has_plain_linear_head, loss
from studio.worker.sampling import Sampling

MOST_AT_ONCE = {"cpu": 16}  # answers; elsewhere 64
USED_SHARE = 0.5  # of the free memory, for the caches of answers
TURN = 4  # batches of questions that one side answers before the other does
Question = tuple[list[dict[str, Any]], dict[str, Any]]  # messages, template variables


class Ended(NamedTuple):
    """An answer as it ended. finish: stop, length, failed or too long (the question has no room in the context)."""

    text: str
    finish: str
    tokens: int


def main(order: dict[str, Any]) -> None:
    torch.set_num_threads(device.cores())
    references = {side: resolve(order[side]) for side in SIDES}
    if order.get("measure_forgetting"):
        order = {**order, "general": AfterTraining()}
    models = LoadedModels()
    if references["tuned"].standalone:
        for side in SIDES:
            _one_side(models, references, side, order, order["questions"])
            models.unload(references[side].name)
        return
    for side in SIDES:
        _load(models, references[side], side)
        _losses(models.by_name[references[side].name], _encoder(models, references, side), side, order)
    size = batch_size(models.by_name[references["tuned"].name], order)
    questions = order["questions"]
    for start in range(0, len(questions), TURN * size):
        for side in SIDES:
            _answers(models.by_name[references[side].name], side, order, questions[start : start + TURN * size])


def _one_side(
    models: LoadedModels,
    references: dict[str, ModelReference],
    side: str,
    order: dict[str, Any],
    questions: list[dict[str, Any]],
) -> None:
    loaded = _load(models, references[side], side)
    _losses(loaded, _encoder(models, references, side), side, order)
    _answers(loaded, side, order, questions)


def _load(models: LoadedModels, reference: ModelReference, side: str) -> LoadedModel:
    emit("doing", doing=f"loading {side}")
    return models.load(reference)


def _encoder(models: LoadedModels, references: dict[str, ModelReference], side: str) -> Encoder:
    """The tuned model's encoder for both sides, or the base's where the tuned model has tokens of its own."""
    tuned = references["tuned"]
    if tuned.tokenizer != references[side].tokenizer:
        return models.by_name[references[side].name].encoder
    return Encoder(tuned.tokenizer, tuned.template)


# -- losses


@torch.inference_mode()
def _losses(loaded_model: LoadedModel, encoder: Encoder, side: str, order: dict[str, Any]) -> None:
    """Emit {loss, tokens, correct} of each row: sums over its trained tokens, as the trainer's evaluation has them."""
    for key, value in order["encoding"].items():
        setattr(encoder, key, value)
    emit("doing", doing=f"loss of {side}")
    for number, row in enumerate(order["rows"]):
        measured = memory.unless_short(partial(_chunk_losses, loaded_model.model, chunks_of(encoder, row, order)))
        if measured is None:
            emit("note", text=f"Row {number + 1} has no room in memory even alone: its loss is left out.")
        total, tokens, hits = map(sum, zip(*measured or [(0.0, 0, 0)]))
        emit("loss", side=side, row=number, loss=total, tokens=tokens, correct=hits, left_out=measured is None)
    if general := order.get("general"):
        emit("doing", doing=f"general questions to {side}")
        figures = memory.unless_short(lambda: general(side, loaded_model.model, encoder) or {})
        if figures is None:
            emit("note", text="Forgetting is not measured: memory is too short for it.")
        elif figures:
            emit("forgetting", **figures)


def _chunk_losses(model: Any, chunks: Sequence[Encoded]) -> list[tuple[float, int, int]]:
    return [row_loss(model, chunk.ids, chunk.labels) for chunk in chunks]


def chunks_of(encoder: Encoder, row: dict[str, Any], order: dict[str, Any]) -> list[Encoded]:
    """A row as the trainer measures it: a text beyond the limit in chunks, where the order says to split it."""
    limit = order["encoding"]["max_length"]
    splits = order["encoding"]["too_long"] == "split" and "text" in row
    whole = encoder.encode(row, whole=True) if splits else None
    return split_row(whole, limit, order["overlap"]) if whole is not None and whole.overflow else [encoder.encode(row)]


def row_loss(model: Any, ids: Sequence[int], labels: Sequence[int]) -> tuple[float, int, int]:
    """(loss summed over targets, targets, targets that are the likeliest token) of one row; logits only in chunks."""
    targets = len(labels) - 1 - list(labels[1:]).count(IGNORE_INDEX)
    if targets <= 0:
        return 0.0, 0, 0
    weights = next(model.parameters())
    inputs = {
        name: torch.tensor([values], device=weights.device) for name, values in (("input_ids", ids), ("labels", labels))
    }
    correct: list[torch.Tensor] = []
    head = "chunked" if has_plain_linear_head(model) else "full"
    dtype = weights.dtype if weights.is_floating_point() else torch.bfloat16
    total = loss(model, {**inputs, "use_cache": False}, head, dtype, correct=correct)
    return float(total), targets, int(sum(correct))


# -- answers


def _answers(loaded_model: LoadedModel, side: str, order: dict[str, Any], questions: list[dict[str, Any]]) -> None:
    emit("doing", doing=f"answers of {side}")
    sampling = Sampling(max_tokens=order["max_new_tokens"], temperature=0)
    asked = [
        (question["messages"], {"tools": question["tools"]} if question.get("tools") else {}) for question in questions
    ]
    for number, ended in answered(loaded_model, asked, sampling, batch_size(loaded_model, order)):
        emit("answer", side=side, row=questions[number]["row"], **ended._asdict())


def answered(
    loaded_model: LoadedModel, asked: Sequence[Question], sampling: Sampling, size: int
) -> Iterator[tuple[int, Ended]]:
    """(number, answer) of every question, each as soon as it has ended.

    size: answers that are generated at once; halved where memory does not suffice. A single answer without room ends
    as failed.
    """
    waiting = deque(range(len(asked)))
    running: dict[int, Answer] = {}  # by the number of the question
    while waiting or running:
        try:
            while waiting and len(running) < size:
                number = waiting.popleft()
                answer = _to_be_written(loaded_model, asked[number], sampling)
                if isinstance(answer, Ended):
                    yield number, answer
                else:
                    running[number] = answer
                    loaded_model.batch.prefill_group([answer])
            loaded_model.batch.step()
        except RuntimeError as error:
            if not memory.is_out_of_memory(error):
                raise
            begun = sorted(running)
            running.clear()
            loaded_model.batch = Batch(loaded_model.model)
            memory.empty_cache()
            if size == 1:
                yield from (_without_room(number) for number in begun)
                continue
            waiting.extendleft(reversed(begun))
            size = max(1, min(size, len(begun)) // 2)
            emit("note", text=f"Memory was short: {size} answers at once from now on.")
            continue
        for number, answer in list(running.items()):
            if answer.finish_reason is not None:
                del running[number]
                yield number, Ended(answer.written, answer.finish_reason, len(answer.output_ids))


def _without_room(number: int) -> tuple[int, Ended]:
    """A question's failed answer, which a note tells."""
    emit("note", text=f"Question {number + 1} has no room in memory even alone: it counts as not answered.")
    return number, Ended("", "failed", 0)


def _to_be_written(loaded_model: LoadedModel, question: Question, sampling: Sampling) -> Answer | Ended:
    """The answer to a question, which is still to be written; how it ended where it cannot be."""
    messages, variables = question
    try:
        return loaded_model.answer(messages, sampling, **variables)
    except StudioError as error:
        return Ended("", "too long" if error.where == "messages" else "failed", 0)


def batch_size(loaded_model: LoadedModel, order: dict[str, Any]) -> int:
    """Answers at once, by the longest question with the longest answer."""
    return rows_at_once(loaded_model, order["prompt_tokens"] + order["max_new_tokens"])


def rows_at_once(loaded_model: LoadedModel, length: int, logits: int = 1) -> int:
    """Rows of `length` tokens whose caches and logits USED_SHARE of the free memory holds."""
    config = loaded_model.batch.base_model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    weights = next(loaded_model.batch.base_model.parameters())
    itemsize = weights.element_size() if weights.is_floating_point() else 2
    cache = 2 * config.num_hidden_layers * heads * head_dim * itemsize * length
    per_row = 2 * cache + 12 * config.vocab_size * logits  # a join copies the cache; logits in float32, three times
    size = int(USED_SHARE * device.devices()[0].free / max(1, per_row))
    return max(1, min(size, MOST_AT_ONCE.get(loaded_model.batch.device.type, 64)))


if __name__ == "__main__":
    run_on_order(main)
