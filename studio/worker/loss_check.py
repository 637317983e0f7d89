"""Before every run: does the model compute the loss that training will use as transformers alone computes it?

The truth is independent of this studio's layouts, attention and loss: the model is called with each row by itself, transformers' eager attention
is set, and torch's cross entropy is taken of its logits. A model that computes otherwise is trained the plain way instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from studio.auto import CAPPED
from studio.errors import StudioError
from studio.resolve import Resolved
from studio.worker import distributed, sharding
from studio.worker.batches import MicroBatchCollator, Row
from studio.worker.loss import plain
from studio.worker.probe import NO_MEMORY, untouched

LENGTHS = (31, 48)  # tokens of the rows compared, unlike each other so that padding shows
NEAR, NEAR_ROUNDED = (
    5e-5,
    3e-2,
)  # how far the mean losses may lie apart, relative: computed in float32; in 16 bits or on a quantized base


def agreed(trainer: Any, resolved: Resolved) -> Resolved:
    """The settings as they are, or with padded rows, transformers' own attention and the full loss where the model computes otherwise.

    The trainer and its model are changed alike, with a warning in the report. All processes decide the same. Random states are left as found.
    """
    with untouched(trainer.model), torch.no_grad(), trainer.accelerator.autocast():
        resolved = _compared(trainer, resolved, _rows(trainer.train_dataset))
    if trainer.split:
        sharding.reshard(trainer.model)
    return resolved


def _compared(trainer: Any, resolved: Resolved, rows: list[Row]) -> Resolved:
    truth, found = _truth(trainer, rows), _ours(trainer, rows)
    if _apart(trainer, found, truth):
        why = f"({found:.4f} instead of {truth:.4f})" if isinstance(found, float) else f"({found})"
        resolved = _take_the_plain_way(trainer, resolved, why)
        trainer.report.note(
            f"This model computes differently when rows share a batch or the head is cut {why}: "
            "it is trained the plain way, slower and with more memory.",
            "warning",
        )
        found = _ours(trainer, rows)
        if _apart(trainer, found, truth):
            trainer.report.note(
                f"Even the plain way this model's loss on padded rows is not that of each row by itself ({found} instead of {truth:.4f}). "
                "Set training.batch_size to 1, and compare the result with another program's.",
                "warning",
            )
    return resolved


def _rows(dataset: Any) -> list[Row]:
    """Two short rows with every token trained on; of a dataset of one row the same twice."""
    first = list(dataset.first(2))
    cut = [list(row["input_ids"][:length]) for row, length in zip(first * 2, LENGTHS)]
    return [{"input_ids": ids, "labels": list(ids)} for ids in cut if ids]


def _truth(trainer: Any, rows: list[Row]) -> float:
    """The mean loss per token as transformers computes it, each row by itself."""
    total = torch.zeros((), device=trainer.args.device)
    with _attention(trainer.model, "eager"):
        for row in rows:
            ids = torch.tensor([row["input_ids"]], device=trainer.args.device)
            logits = trainer.model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[
                0, -ids.shape[1] :
            ]
            total += cross_entropy(logits[:-1].float(), ids[0, 1:], reduction="sum")
    return total.item() / max(1, _count(rows))


def _ours(trainer: Any, rows: list[Row]) -> float | str:
    """The mean loss per token of the same rows in one micro-batch, as training computes it; what went wrong where the model cannot."""
    layout = trainer.layout._replace(max_tokens=max(trainer.layout.max_tokens, 2 * sum(LENGTHS)))
    try:
        parts = [
            trainer.micro_batch_loss(trainer.model.eval(), micro_batch)
            for micro_batch in MicroBatchCollator(layout)(rows)
        ]
    except StudioError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        if any(words in str(error) for words in NO_MEMORY):
            raise
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return sum(parts).item() / max(1, _count(rows))


def _apart(trainer: Any, found: float | str, truth: float) -> bool:
    """Whether they differ by more than rounding, on any process."""
    exact = trainer.dtype == torch.float32 and trainer.method.quantized() is None
    near = isinstance(found, float) and abs(found - truth) <= (NEAR if exact else NEAR_ROUNDED) * max(1.0, abs(truth))
    return any(distributed.gather(not near))


def _take_the_plain_way(trainer: Any, resolved: Resolved, why: str) -> Resolved:
    base = plain(trainer.model)
    capped = any(getattr(base.config.get_text_config(), key, None) for key in CAPPED)
    own = "sdpa" if base._supports_sdpa and base._can_set_attn_implementation() and not capped else "eager"
    _set_attention(base, own)
    trainer.kind, trainer.layout = "full", trainer.layout._replace(packed=False)
    return resolved._replace(
        packed=False,
        loss="full",
        attention=own,
        masked=True,
        why={**resolved.why, "packing": f"the loss is off when rows share a batch or the head is cut {why}"},
    )


def _count(rows: list[Row]) -> int:
    return sum(len(row["input_ids"]) - 1 for row in rows)


@contextmanager
def _attention(model: Any, kind: str) -> Iterator[None]:
    """Set the attention function, and put the one that was there back."""
    base = plain(model)
    before = base.config._attn_implementation
    _set_attention(base, kind)
    try:
        yield
    finally:
        _set_attention(base, before)


def _set_attention(base: Any, kind: str) -> None:
    """Families outside transformers' attention interface read the name only where they make their mask; eager's mask suits all they have."""
    if base._can_set_attn_implementation():
        base.set_attn_implementation(kind)
    else:
        base.config._attn_implementation = kind
