"""Checks of the loss before a run.

`check_loss`: is the loss that training will use the one that transformers computes alone? The reference is independent
of this studio's collation, attention and loss: each row by itself, transformers' eager attention, torch's cross entropy
of the logits. A model that computes otherwise is trained the plain way instead. `is_finite`: does fp16 hold the model's
numbers?
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from studio.auto import CAPPED
from studio.errors import ModelError, StudioError, named_reason
from studio.kernels import IGNORE_INDEX
from studio.resolve import Resolved
from studio.worker import distributed, sharding
from studio.worker.batches import MicroBatchCollator
from studio.worker.loss import experts_balance, loss, unwrap
from studio.worker.memory import is_out_of_memory
from studio.worker.modes import without_side_effects
from studio.worker.packing import Row, collate

LENGTHS = (31, 48)  # tokens of the rows compared, unlike each other so that padding shows
TOLERANCE = 5e-5  # relative difference of the mean losses, computed in float32
TOLERANCE_ROUNDED = 3e-2  # in 16 bits or on a quantized base
CHANGED, CHANGED_ROUNDED = 1e-4, 5e-2  # mean change of a logit in standard deviations that is more than rounding


ERRORS = (TypeError, ValueError, LookupError, AttributeError, RuntimeError)  # of a model's own code


def check_loss(trainer: Any, resolved: Resolved) -> Resolved:
    """The settings unchanged, or with padded rows, transformers' attention and the full loss where the losses differ.

    The trainer and its model are changed alike, with a warning in the report. All processes decide the same. Raises
    ModelError for a model that reads ahead, or whose own forward fails.
    """
    with without_side_effects(trainer.model), torch.no_grad(), trainer.accelerator.autocast():
        rows = _short_rows(trainer.train_dataset)
        with _attention_set_to(trainer.model.eval(), "eager"):
            logits = [_logits(trainer, row["input_ids"]) for row in rows]
            _refuse_reading_ahead(trainer, rows, logits)
            _note_other_terms(trainer, rows, logits)
        resolved = _compare(trainer, resolved, rows, _reference_loss(rows, logits))
    if trainer.sharded:
        sharding.reshard(trainer.model)
    return resolved


def is_finite(model: Any, rows: list[Row], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the loss of every row is finite with products in dtype: fp16 ends at 65,504, which Gemma exceeds."""
    model.eval()
    for row in rows:
        micro_batch = collate([row], False, max_width=len(row["input_ids"]))
        micro_batch["input_ids"] = micro_batch["labels"] = micro_batch["input_ids"].to(device)
        with torch.no_grad(), torch.autocast(device.type, dtype):
            if not torch.isfinite(loss(model, micro_batch, "full", dtype)):
                return False
    return True


def _refuse_reading_ahead(trainer: Any, rows: list[Row], logits: list[torch.Tensor]) -> None:
    """Raise ModelError where what is predicted in a row's first half depends on its second. logits: of each row alone.

    Encoders do so, and transformers' causal classes of some of them unless config.json says is_decoder.
    """
    ids = list(rows[0]["input_ids"]) if rows else []
    half = len(ids) // 2
    other = ids[:half] + (2 * ids[half - 1 :: -1])[: len(ids) - half] if half > 1 else ids
    if other == ids:
        return
    before, after = logits[0][:half], _logits(trainer, other)[:half]
    is_exact = trainer.dtype == torch.float32 and trainer.method.quantized() is None
    changed = float((before - after).abs().mean() / before.std())
    if any(distributed.gather(changed > (CHANGED if is_exact else CHANGED_ROUNDED))):
        raise ModelError(
            f"This {unwrap(trainer.model).config.model_type} model reads ahead: what it predicts depends on the tokens "
            "that come after, which it would learn to copy.",
            "Take a decoder-only language model. An encoder such as BERT reads both ways and writes no text.",
            "model",
        )


def _note_other_terms(trainer: Any, rows: list[Row], logits: list[torch.Tensor]) -> None:
    """Say where transformers' own loss of the first row holds more than is trained here, such as bamba's z-loss."""
    if trainer.objective is not None or not rows:
        return
    base, ids = unwrap(trainer.model), torch.tensor([rows[0]["input_ids"]], device=trainer.args.device)
    labels = ids.clone()
    labels[0, 0] = IGNORE_INDEX  # virtual tokens would predict it
    try:
        output = trainer.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, use_cache=False)
    except ERRORS as error:
        _named(error)
        return  # its own loss wants more than a text
    theirs, trained = float(output.loss), _reference_loss(rows[:1], logits[:1]) + float(experts_balance(base, output))
    if _differ(trainer, theirs, trained):
        trainer.report.note(
            f"transformers' own loss of this {base.config.model_type} model is {theirs:.4f} where the cross entropy of "
            f"what it predicts is {trained:.4f}: config.json adds another term to it, which is not trained here.",
            "warning",
        )


def _compare(trainer: Any, resolved: Resolved, rows: list[Row], reference: float) -> Resolved:
    actual = _training_loss(trainer, rows)
    if not _differ(trainer, actual, reference):
        return resolved
    why = f"({actual:.4f} instead of {reference:.4f})" if isinstance(actual, float) else f"({actual})"
    resolved = _take_the_plain_way(trainer, resolved, why)
    trainer.report.note(
        f"This model computes differently when rows share a batch or the head is cut {why}: "
        "it is trained the plain way, slower and with more memory.",
        "warning",
    )
    actual = _training_loss(trainer, rows)
    if _differ(trainer, actual, reference):
        trainer.report.note(
            f"Even the plain way this model's loss on padded rows is not that of each row by itself ({actual} instead "
            f"of {reference:.4f}). Set training.batch_size to 1, and compare the result with another program's.",
            "warning",
        )
    return resolved


def _short_rows(dataset: Any) -> list[Row]:
    """Two short rows with every token a target; of a dataset of one row the same twice."""
    rows = list(dataset.first(2))
    token_ids = [list(row["input_ids"][:length]) for row, length in zip(rows * 2, LENGTHS)]
    return [{"input_ids": ids, "labels": list(ids)} for ids in token_ids if ids]


def _reference_loss(rows: list[Row], logits: list[torch.Tensor]) -> float:
    """The mean loss per token as transformers computes it, each row by itself."""
    total = sum(
        cross_entropy(predicted[:-1], torch.tensor(row["input_ids"][1:], device=predicted.device), reduction="sum")
        for row, predicted in zip(rows, logits, strict=True)
    )
    return float(total) / _count_targets(rows)


def _logits(trainer: Any, token_ids: list[int]) -> torch.Tensor:
    """[tokens, vocabulary] in float32 of one row alone; virtual tokens stand before the row's own."""
    ids = torch.tensor([token_ids], device=trainer.args.device)
    try:
        logits = trainer.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    except StudioError:
        raise
    except ERRORS as error:
        raise ModelError(
            f"This {unwrap(trainer.model).config.model_type} model cannot compute a single row of {len(token_ids)} "
            f"tokens under {trainer.method.label}: {_named(error)}",
            "Take another method, or another model.",
            "model",
        ) from error
    return logits[0, -len(token_ids) :].float()


def _named(error: Exception) -> str:
    """The kind of an error and its first line; memory that ran out is raised as it is."""
    if is_out_of_memory(error):
        raise error
    return named_reason(error)


def _training_loss(trainer: Any, rows: list[Row]) -> float | str:
    """The mean loss per token of the rows in one micro-batch as training computes it, or the error that it raises."""
    layout = trainer.layout._replace(max_tokens=max(trainer.layout.max_tokens, 2 * sum(LENGTHS)))
    micro_batches = MicroBatchCollator(layout)(rows)
    token_loss = trainer.micro_batch_loss if trainer.objective is None else trainer.token_loss
    try:
        losses = [token_loss(trainer.model.eval(), micro_batch) for micro_batch in micro_batches]
    except StudioError:
        raise
    except ERRORS as error:
        return _named(error)
    return sum(losses).item() / _count_targets(rows)


def _differ(trainer: Any, actual: float | str, reference: float) -> bool:
    """Whether the losses differ by more than rounding, on any process."""
    is_exact = trainer.dtype == torch.float32 and trainer.method.quantized() is None
    limit = (TOLERANCE if is_exact else TOLERANCE_ROUNDED) * max(1.0, abs(reference))
    is_near = isinstance(actual, float) and abs(actual - reference) <= limit
    return any(distributed.gather(not is_near))


def _take_the_plain_way(trainer: Any, resolved: Resolved, why: str) -> Resolved:
    base = unwrap(trainer.model)
    has_softcap = any(getattr(base.config.get_text_config(), key, None) for key in CAPPED)
    takes_sdpa = base._supports_sdpa and base._can_set_attn_implementation() and not has_softcap
    attention = "sdpa" if takes_sdpa else "eager"
    _set_attention(base, attention)
    trainer.loss_kind, trainer.layout = "full", trainer.layout._replace(packed=False)
    return resolved._replace(
        packed=False,
        loss="full",
        attention=attention,
        masked=True,
        why={**resolved.why, "packing": f"the loss is off when rows share a batch or the head is cut {why}"},
    )


def _count_targets(rows: list[Row]) -> int:
    return max(1, sum(len(row["input_ids"]) - 1 for row in rows))


@contextmanager
def _attention_set_to(model: Any, name: str) -> Iterator[None]:
    base = unwrap(model)
    before = base.config._attn_implementation
    _set_attention(base, name)
    try:
        yield
    finally:
        _set_attention(base, before)


def _set_attention(base: Any, name: str) -> None:
    """Families outside transformers' attention interface read the name for their mask only; eager's suits them."""
    if base._can_set_attn_implementation():
        base.set_attn_implementation(name)
    else:
        base.config._attn_implementation = name
