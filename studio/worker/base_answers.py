"""What a base answers to general items, at every target token, and how far another model's answers lie from that.

Kept of the base's answer are, for every target token, its loss and its TOP most likely next tokens with their
log-probabilities, 512 bytes a token on the host; so the base is never needed again. The KL is taken over those tokens
and one more outcome, "any other": a lower bound of the KL over the whole vocabulary, exact where the base puts all its
weight on the tokens kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from studio import general
from studio.errors import TemplateError
from studio.kernels import IGNORE_INDEX, LOGIT_CHUNK_BYTES
from studio.tokens import Encoder
from studio.worker.loss import context_length, forward, target_indices, unwrap
from studio.worker.memory import in_halves
from studio.worker.packing import Row, collate

Found = TypeVar("Found")
TOP = 64  # tokens of the base's distribution that are kept at every position
MAX_LENGTH = 256  # tokens of an item; the rest is cut
MAX_TOKENS = 1024  # of a padded batch


class Target(NamedTuple):
    """The base's answer to one item. ids, log_probs: [targets, TOP]; loss: [targets]. On the host."""

    ids: torch.Tensor
    log_probs: torch.Tensor
    loss: torch.Tensor


def join(answers: Sequence[Target], device: torch.device) -> Target:
    """The answers to several items, one after the other, on the device."""
    return Target(*(torch.cat(parts).to(device) for parts in zip(*answers, strict=True)))


def encode(
    encoder: Encoder, items: Sequence[general.Item], max_length: int = MAX_LENGTH
) -> list[tuple[general.Item, Row]]:
    """The items as rows whose answers (texts: all) are targets; those that the template cannot write are left out."""
    encoder = copy.copy(encoder)
    limit = min(max_length, encoder.context_limit or max_length)
    encoder.max_length, encoder.too_long, encoder.train_on = limit, "cut", "assistant"
    rows = []
    for item, encoded in zip(items, encoder.encode_each([item.conversation for item in items]), strict=True):
        if not isinstance(encoded, TemplateError) and encoded.n_trained:
            rows.append((item, {"input_ids": encoded.ids, "labels": encoded.labels}))
    return rows


def targets_of(row: Row) -> list[int]:
    """Positions of row["labels"][1:] that are targets."""
    return [index for index, label in enumerate(row["labels"][1:]) if label != IGNORE_INDEX]


def batches(rows: Sequence[Row], vocabulary: int, device: str) -> Iterator[list[int]]:
    """Row numbers, alike in length, of batches whose logits fit where training's fit."""
    max_targets = max(1, LOGIT_CHUNK_BYTES.get(device, 2**27) // (8 * vocabulary))
    batch: list[int] = []
    num_targets = 0
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number]["input_ids"])):
        targets, width = len(targets_of(rows[number])), len(rows[number]["input_ids"])
        if batch and (num_targets + targets > max_targets or (len(batch) + 1) * width > MAX_TOKENS):
            yield batch
            batch, num_targets = [], 0
        batch.append(number)
        num_targets += targets
    if batch:
        yield batch


class TargetBatch(NamedTuple):
    """Padded rows. input_ids: [rows, width]; positions: of the targets among labels[:, 1:].flatten(); padding: tokens
    of each row.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    padding: list[int]


def target_batch(model: Any, rows: Sequence[Row], device: torch.device) -> TargetBatch:
    """Rows padded no further than the model has positions for, behind the virtual tokens of its method."""
    configs = getattr(getattr(model, "module", model), "peft_config", {}).values()
    virtual_tokens = max((getattr(config, "num_virtual_tokens", None) or 0 for config in configs), default=0)
    micro_batch = collate(list(rows), False, context_length(model, virtual_tokens))
    positions = target_indices(micro_batch["labels"])
    targets = micro_batch["labels"][:, 1:].flatten()[positions]
    tensors = (part.to(device) for part in (micro_batch["input_ids"], positions, targets))
    return TargetBatch(*tensors, micro_batch["padding"])


def target_log_probs(model: Any, batch: TargetBatch) -> torch.Tensor:
    """Log-probabilities at the targets, float32 [targets, vocabulary].

    The head is applied at the targets only: a hook leaves it their hidden states, and what the model does to the
    logits afterwards (scale, soft cap) is its own.
    """
    input_ids, positions, _, padding = batch
    width, hooked = input_ids.shape[1], []

    def keep_targets(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = args[0][:, -width:][:, :-1].flatten(0, 1)  # virtual tokens stand before the row's own
        hooked.append(True)
        return (hidden[positions][None], *args[1:])

    head = unwrap(model).get_output_embeddings()
    hook = head.register_forward_pre_hook(keep_targets) if isinstance(head, torch.nn.Module) else None
    try:
        logits = forward(model, {"input_ids": input_ids, "padding": padding}).logits
    finally:
        if hook is not None:
            hook.remove()
    logits = logits[0] if hooked else logits[:, -width:][:, :-1].flatten(0, 1)[positions]
    return torch.log_softmax(logits, -1, dtype=torch.float32)


def _of_each(
    model: Any, rows: Sequence[Row], device: torch.device, ask: Callable[[Sequence[int], TargetBatch], Iterable[Found]]
) -> list[Found]:
    """A result of `ask` for each row. It gets the numbers and the batch of some rows; fewer where memory is short."""
    by_row: dict[int, Found] = {}

    def take(numbers: Sequence[int]) -> None:
        batch = target_batch(model, [rows[number] for number in numbers], device)
        by_row.update(zip(numbers, ask(numbers, batch), strict=True))

    for numbers in batches(rows, unwrap(model).config.get_text_config().vocab_size, device.type):
        in_halves(take, numbers)
    return [by_row[number] for number in range(len(rows))]


@torch.no_grad()
def ask_base(model: Any, rows: Sequence[Row], device: torch.device) -> list[Target]:
    """The answers of a model that is the base as it stands."""

    def ask(numbers: Sequence[int], batch: TargetBatch) -> Iterator[Target]:
        log_probs = target_log_probs(model, batch)
        loss = -log_probs.gather(-1, batch.targets[:, None])[:, 0]
        top, ids = log_probs.topk(min(TOP, log_probs.shape[-1]), -1)
        sizes = [len(targets_of(rows[number])) for number in numbers]
        return map(Target, *(value.cpu().split(sizes) for value in (ids.int(), top, loss)))

    return _of_each(model, rows, device, ask)


def divergence(log_probs: torch.Tensor, base: Target) -> torch.Tensor:
    """KL(base ‖ model) at every position [targets], over the kept tokens and "any other"."""
    model_top = log_probs.gather(-1, base.ids.long())
    base_rest, model_rest = (1 - top.exp().sum(-1) for top in (base.log_probs, model_top))
    base_rest, model_rest = base_rest.clamp_min(1e-7), model_rest.clamp_min(1e-7)
    among_top = (base.log_probs.exp() * (base.log_probs - model_top)).sum(-1)
    return among_top + base_rest * (base_rest.log() - model_rest.log())


@torch.no_grad()
def compare(model: Any, rows: Sequence[Row], base: Sequence[Target], device: torch.device) -> list[tuple[float, float]]:
    """(loss rise, KL) of every row against the base's answers: means over its targets, in nats per token."""

    def ask(numbers: Sequence[int], batch: TargetBatch) -> Iterator[tuple[float, float]]:
        log_probs = target_log_probs(model, batch)
        answers = join([base[number] for number in numbers], device)
        rise = -log_probs.gather(-1, batch.targets[:, None])[:, 0] - answers.loss
        sizes = [len(targets_of(rows[number])) for number in numbers]
        parts = (value.split(sizes) for value in (rise, divergence(log_probs, answers)))
        return ((rises.mean().item(), divergences.mean().item()) for rises, divergences in zip(*parts))

    return _of_each(model, rows, device, ask)
