"""The TrainingLoop of our own trainer (worker/train.py) for an order, a device and what is known of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from studio import auto, general
from studio.base.tensors import EMBEDDING
from studio.config import RunConfig
from studio.device import Device
from studio.footprint import Footprint
from studio.kernels import logit_chunk_bytes, padded_width
from studio.memory.training_loop import TrainingLoop
from studio.model import ModelFacts
from studio.stage import Stage

LABELLED = 0.7  # share of tokens with a label where the data is not known yet
SIDE_SHARE = 60  # per cent of the longest pair's tokens that its longer side has
ASSUMED_ROWS = 1000  # where the data is not known yet


class RowStatistics(NamedTuple):
    """Usable rows, tokens in all, tokens with a label, tokens of the longest row, rows held out."""

    rows: int
    tokens: int
    label_tokens: int
    longest: int
    eval_rows: int = 0

    @classmethod
    def of(cls, rows: RowStatistics | Mapping[str, int] | None) -> RowStatistics | None:
        """The statistics from what data.prepare returns."""
        if rows is None or isinstance(rows, RowStatistics):
            return rows
        return cls(rows["rows"], rows["tokens"], rows["trained"], rows["max"], rows.get("eval_rows", 0))

    def answered(self, stage: Stage) -> RowStatistics:
        """The statistics with a row for each answer that the model writes, taken to be as long as allowed."""
        if not stage.generates:
            return self
        rows, tokens = self.rows * stage.answers_per_row, stage.answer_tokens
        return RowStatistics(
            rows,
            self.tokens * stage.answers_per_row + rows * tokens,
            rows * tokens,
            self.longest + tokens,
            self.eval_rows,
        )

    @property
    def mean(self) -> float:
        """Tokens of a row."""
        return self.tokens / max(1, self.rows)


def longest_row(config: RunConfig, rows: RowStatistics | None) -> int:
    """Tokens of the longest row; of a pair of both its answers, each with the prompt."""
    limit = config.data.max_length * config.stage.sequences + config.stage.answer_tokens
    return limit if rows is None else min(limit, rows.longest + config.stage.answer_tokens)


def longest_sequence(config: RunConfig, row: int) -> int:
    """Tokens of the longest sequence that attends to itself: of a pair the longer side; both have the prompt."""
    return row if config.stage.sequences == 1 else min(config.data.max_length, -(-SIDE_SHARE * row // 100))


def studio_loop(
    config: RunConfig,
    facts: ModelFacts,
    device: Device,
    rows: RowStatistics | None,
    footprint: Footprint,
    checkpointed_layers: int,
    tokens: int | None = None,
) -> TrainingLoop:
    """The loop at the run's largest micro-batch of `tokens`. Raises OrderError for settings that the device lacks."""
    training, itemsize, row = config.training, base_itemsize(config, device), longest_row(config, rows)
    shape = _largest_micro_batch(config, facts, device, rows, tokens)
    kernel, mask, repeats_kv = _attention(config, facts, device, shape, row, bool(footprint.prefix))
    answered = rows and rows.answered(config.stage)
    fused, _ = auto.fused_kernels(config, facts, device)
    checkpointing = checkpointed_layers > 0
    share = LABELLED if answered is None else min(1.0, answered.label_tokens / max(1, answered.tokens))
    share = 0.0 if config.stage.scores else share  # a reward model's head is one number a sequence
    narrow = training.weights == "bf16"
    tables = not narrow and any(EMBEDDING.search(name) for name in footprint.weights)
    micro_batches, rest = _micro_batches(config, rows, row, shape)
    evaluates = rows.eval_rows > 0 if rows else bool(config.data.eval)
    return TrainingLoop(
        device="cpu" if device.kind == "cpu" else "cuda",
        batch=shape.rows,
        length=shape.length,
        longest_row=min(longest_sequence(config, row), shape.length),
        labels=max(1, int(shape.rows * shape.length * share)),
        weight_itemsize=itemsize,
        hidden_itemsize=4 if tables else itemsize,
        autocast_itemsize=0 if itemsize == 4 or narrow else itemsize,
        attention="flash" if "flash" in kernel else kernel,
        mask=mask,
        repeats_kv=repeats_kv,
        adapters_in_place=auto.fast_lora(config),
        fused_norms=fused,
        fused_feed_forward=fused,
        fp16=uses_fp16(config, device),
        checkpointing=checkpointing,
        kept_layers=max(0, facts.num_hidden_layers - checkpointed_layers) if checkpointing else 0,
        logit_chunk=logit_chunk_bytes(device.traits.torch, device.memory),
        head=auto.loss(config),
        accumulates=micro_batches > 1,
        last_length=rest if rest < shape.length else 0,
        optimizer=auto.optimizer(config, device),
        input_grads=checkpointing and not tables and not narrow,
        world_size=training.device_count,
        brake=general.BRAKE_TOKENS if training.keep_general else 0,
        evaluates=evaluates,
        beside=facts.parameters * itemsize if holds_reference(config) else 0,
        writes=training.batch_size * config.stage.answers_per_row,
        samples=len(training.sample_prompts) or (training.samples if evaluates else 0),
    )


class MicroBatchShape(NamedTuple):
    """A micro-batch as the model sees it; packed: several rows of the data in its one row."""

    packed: bool
    kernel: str
    rows: int
    length: int


def _largest_micro_batch(
    config: RunConfig, facts: ModelFacts, device: Device, rows: RowStatistics | None, tokens: int | None
) -> MicroBatchShape:
    row, known = longest_row(config, rows), rows and rows.answered(config.stage)
    packed, kernel, _ = auto.layout(config, facts, device, row)
    if packed:
        length = tokens or auto.packed_tokens(config, device, row)
        # nearly alike: as many whole rows as fit; answers that the model writes end where they will
        if known is not None and known.mean > 0.9 * row and not config.stage.generates:
            length = length // row * row
        return MicroBatchShape(True, kernel, 1, padded_width(min(length, step_tokens(config, rows))))
    batch = max(1, min(auto.padded_rows(config, row, tokens), known.rows if known else ASSUMED_ROWS))
    # both answers of a pair, one below the other
    return MicroBatchShape(False, kernel, batch * config.stage.sequences, padded_width(longest_sequence(config, row)))


def _micro_batches(config: RunConfig, rows: RowStatistics | None, row: int, shape: MicroBatchShape) -> tuple[int, int]:
    """(micro-batches of a step of mean rows, padded tokens of the second where there are two of packed rows)."""
    answered = rows and rows.answered(config.stage)
    mean = sequences_per_step(config, rows) * (int(answered.mean) + 1 if answered else row)
    mean //= config.training.device_count
    tokens = min(mean, step_tokens(config, answered))
    micro_batches = -(-tokens // (shape.rows * shape.length))
    return micro_batches, padded_width(tokens - shape.length) if shape.packed and micro_batches == 2 else 0


def _attention(
    config: RunConfig, facts: ModelFacts, device: Device, shape: MicroBatchShape, row: int, prefixed: bool
) -> tuple[str, bool, bool]:
    """(kernel, whether it is given a mask that its causal flag cannot replace, whether shared keys are copied)."""
    kernel = shape.kernel
    mask = prefixed or (kernel in ("sdpa", "eager") if shape.packed else auto.windowed(facts, row))
    shares = device.kind == "cpu" or shares_keys(device, base_itemsize(config, device))
    grouped = facts.num_key_value_heads < facts.num_attention_heads
    if kernel == "sdpa" and not (shape.packed or mask or shares) and grouped and auto.masked(config, facts, row):
        kernel = "eager"  # transformers' own SDPA leaves keys shared, and torch falls back to its math kernel
    return kernel, mask, mask or not shares


def sequences_per_step(config: RunConfig, rows: RowStatistics | None) -> int:
    """Rows of an optimizer step, or answers where the model writes some to each."""
    return config.training.effective_batch(rows.rows if rows else ASSUMED_ROWS) * max(1, config.stage.answers_per_row)


def step_tokens(config: RunConfig, rows: RowStatistics | None) -> int:
    """Tokens that a process is given in a step of the longest rows."""
    return -(-sequences_per_step(config, rows) // config.training.device_count) * longest_row(config, rows)


def holds_reference(config: RunConfig) -> bool:
    """Whether the untouched base is held beside the trained model, to be asked about answers written meanwhile."""
    return config.stage.generates and config.stage.uses_reference and not config.switches_adapter_off


def shares_keys(device: Device, itemsize: int) -> bool:
    """Whether torch's flash kernel is taken, which alone reads shared keys without copies (worker/attention.py)."""
    return device.traits.torch == "cuda" and itemsize == 2 and (device.capability or (8, 0)) >= (8, 0)


def with_fsdp(loop: TrainingLoop) -> TrainingLoop:
    """The loop of a model split over devices: one compute format, AdamW in place of bitsandbytes' optimizers."""
    fits = not any(word in loop.optimizer for word in ("8bit", "paged", "bnb"))
    return loop._replace(
        fsdp=True, hidden_itemsize=loop.compute_itemsize, optimizer=loop.optimizer if fits else "adamw_torch_fused"
    )


def uses_fp16(config: RunConfig, device: Device) -> bool:
    """Whether 16 bits mean fp16: as ordered, or auto on a card without bf16."""
    return _precision(config, device) == "fp16"


def _precision(config: RunConfig, device: Device) -> str:
    ordered = config.training.precision
    return device.precision if ordered == "auto" else ordered


def base_itemsize(config: RunConfig, device: Device) -> int:
    """Bytes of a number of the frozen base: 2 where 16 bits are ordered, or auto and the device computes in them."""
    return 4 if _precision(config, device) == "fp32" else 2
