"""Training settings that belong to every method: one line each, with bounds and help."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from studio.knob import EVALUATION, KNOBS, LOADING, OPTIMISATION, PRECISION, TRACKERS

Auto = Literal["auto"]
DEFAULT_ACCUMULATION = 4  # 4 rows × 4: the effective batch of 16 that the LoRA tutorials use
MIN_STEPS = 60  # below about this many steps a LoRA at its usual rate has hardly begun to learn


class Training(BaseModel):
    """How long, how fast, in which precision. studio/auto.py and studio/resolve.py resolve `auto`."""

    model_config = KNOBS

    epochs: float = Field(3, gt=0, le=1000, title="Epochs")
    """How often the whole data is gone through. More learns more, and in the end by heart."""
    max_steps: int | None = Field(None, ge=1, title="Steps", json_schema_extra=OPTIMISATION)
    """Stop after this many optimizer steps instead of after epochs."""
    batch_size: int = Field(4, ge=1, le=1024, title="Batch size")
    """Rows worked on at once. More is faster on a GPU and takes more memory."""
    accumulation: Auto | int = Field("auto", title="Gradient accumulation")
    """Batches gathered before one optimizer step. Effective batch = batch size × accumulation; costs no memory. auto:
    4, fewer on small data, so that the run has steps enough to learn."""
    micro_batch: Auto | int = Field("auto", title="Tokens at once", json_schema_extra=PRECISION)
    """Tokens that go through the model in one pass, at least the longest row; the effective batch and what is learnt
    stay. auto: on a GPU as many as keep it busy and fit."""
    learning_rate: float | None = Field(None, gt=0, le=1, title="Learning rate")
    """Size of a step. Left out: the method's own. Too high: the loss jumps; too low: nothing is learnt."""
    schedule: Literal[
        "cosine", "linear", "constant", "constant_with_warmup", "cosine_with_min_lr", "polynomial", "inverse_sqrt"
    ] = Field("cosine", title="Schedule", json_schema_extra=OPTIMISATION)
    """How the learning rate falls over the run."""
    warmup: float = Field(0.03, ge=0, lt=1, title="Warm-up", json_schema_extra=OPTIMISATION)
    """Share of the steps over which the rate rises from zero."""
    weight_decay: float = Field(0.0, ge=0, le=1, title="Weight decay", json_schema_extra=OPTIMISATION)
    """Pulls trained weights towards zero; a little regularises."""
    max_grad_norm: float = Field(1.0, ge=0, le=1000, title="Max gradient norm", json_schema_extra=OPTIMISATION)
    """Longer gradients are shortened to this; 0 switches it off. Prevents jumps."""
    neftune: float | None = Field(None, gt=0, le=100, title="NEFTune noise", json_schema_extra=OPTIMISATION)
    """Noise on the embeddings (alpha, often 5) that can make answers better on small data."""
    label_smoothing: float = Field(0.0, ge=0, lt=1, title="Label smoothing", json_schema_extra=OPTIMISATION)
    """Takes this share of certainty off every right token. Needs full logits."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field("auto", title="Precision", json_schema_extra=PRECISION)
    """Number format of the base model. auto: bf16 where the device computes in it."""
    weights: Literal["auto", "fp32", "bf16"] = Field("auto", title="Trained weights", json_schema_extra=PRECISION)
    """Number format of what is trained. auto: float32. bf16 halves the memory of full fine-tuning; every step is
    rounded at random, so that small ones are not lost."""
    checkpointing: bool | Auto = Field("auto", title="Gradient checkpointing", json_schema_extra=PRECISION)
    """Computes activations twice instead of keeping them: about a third slower, far less memory. auto: only when the
    estimate says it is needed."""
    checkpointed_layers: Auto | int = Field("auto", title="Checkpointed layers", json_schema_extra=PRECISION)
    """How many layers gradient checkpointing covers, from the first on. auto: as many as needed; all where it is
    switched on."""
    packing: bool | Auto = Field("auto", title="Packing", json_schema_extra=PRECISION)
    """Puts several short rows into one, without mixing them: no padding, fewer steps."""
    optimizer: str = Field("auto", pattern=r"^[a-z0-9_]+$", title="Optimizer", json_schema_extra=OPTIMISATION)
    """auto: fused AdamW. adamw_8bit and paged_adamw_8bit save memory on CUDA; adafactor saves more."""
    loss: Literal["auto", "chunked", "full"] = Field("auto", title="Loss", json_schema_extra=PRECISION)
    """chunked: the head is applied to trained tokens only, some at a time; same loss, less memory."""
    attention: Literal["auto", "sdpa", "eager", "flash"] = Field("auto", title="Attention", json_schema_extra=PRECISION)
    """Which attention kernel. auto: the fastest one installed."""
    fused_kernels: bool | Auto = Field("auto", title="Fused kernels", json_schema_extra=PRECISION)
    """liger-kernel's norms, rotary positions and feed-forwards: fewer passes over memory on NVIDIA cards. auto: where
    the package is installed and the model's family is proved."""
    fast_lora: bool = Field(True, title="LoRA in fewer passes", json_schema_extra=PRECISION)
    """Adds LoRA's product inside the base's own result: the same numbers, faster, less memory. Off: peft's own
    forward. torch.compile goes without."""
    compile: bool = Field(False, title="torch.compile", json_schema_extra=PRECISION)
    """Compiles the model first: some minutes once, then 10-30 % faster on a GPU with equal lengths."""
    seed: int = Field(42, ge=0, lt=2**32, title="Seed", json_schema_extra=OPTIMISATION)
    """Same seed, same data, same device: same result."""
    log_every: int = Field(1, ge=1, title="Log every", json_schema_extra=EVALUATION)
    """Steps between two points of the curve."""
    eval_every: int | Auto = Field("auto", title="Evaluate every", json_schema_extra=EVALUATION)
    """Steps between two evaluations. auto: ten times in the run."""
    save_every: int | Auto = Field("auto", title="Save every", json_schema_extra=EVALUATION)
    """Steps between two checkpoints. auto: as often as evaluations."""
    keep_checkpoints: int = Field(2, ge=1, le=1000, title="Checkpoints kept", json_schema_extra=EVALUATION)
    """Older ones are deleted once a newer one is complete."""
    early_stopping: int | None = Field(None, ge=1, title="Early stopping", json_schema_extra=EVALUATION)
    """Stop after this many evaluations without a better held-out loss."""
    keep_best: bool = Field(False, title="Keep the best", json_schema_extra=EVALUATION)
    """The result is the best checkpoint, not the last: that with the lowest held-out loss, or the best on the frontier
    of loss and forgetting (see Best by)."""
    keep_general: float = Field(0.0, ge=0, le=100, title="Keep general abilities")
    """A brake on forgetting: every step also looks at some general prompts, and is penalised for answering them
    otherwise than the base. 0: off; 1 is a good start; more forgets less and learns slower. Costs up to 256 tokens a
    step."""
    keep_general_by: Literal["kl", "replay"] = Field("kl", title="Keep by", json_schema_extra=OPTIMISATION)
    """kl: the base's probabilities of every next token. replay: the answers that the base itself writes to the prompts,
    trained on like data."""
    best_by: Literal["auto", "loss", "frontier"] = Field("auto", title="Best by", json_schema_extra=EVALUATION)
    """What the best checkpoint is chosen by. loss: held-out loss alone. frontier: held-out loss plus what was forgotten
    (KL to the base), both per token. auto: frontier where forgetting is measured."""
    forgetting: bool | Auto = Field("auto", title="Measure forgetting", json_schema_extra=EVALUATION)
    """Asks general questions before, during and after, and compares with the base. auto: as many as add at most 4 % to
    the run's work, none in a run too short for 20."""
    sample_prompts: tuple[str, ...] = Field((), max_length=8, title="Sample prompts", json_schema_extra=EVALUATION)
    """Asked at every evaluation, so that one can read how the answers change. Empty: held-out ones."""
    samples: int = Field(3, ge=0, le=8, title="Held-out samples", json_schema_extra=EVALUATION)
    """Where no sample prompts are given, so many questions of the held-out rows are asked. Samples take at most 3 % of
    the run's time, but a short beginning of each answer at the start and at the end."""
    probe: bool | Auto = Field("auto", title="Probe", json_schema_extra=PRECISION)
    """Runs the longest batch once before the start, so that a run that would die late dies at once. auto: not on a CPU
    where the estimate leaves half of the memory free."""
    report_to: tuple[Literal["trackio", "tensorboard", "wandb", "mlflow", "swanlab"], ...] = Field(
        (), title="Report to", json_schema_extra=TRACKERS
    )
    """Trackers to send metrics to as well. All stay on this computer; wandb and swanlab send where their key is in the
    environment."""
    devices: int | Auto = Field("auto", title="Devices", json_schema_extra=LOADING)
    """How many devices share the run. auto: one."""
    sharding: Literal["auto", "ddp", "fsdp"] = Field("auto", title="Sharding", json_schema_extra=LOADING)
    """On several devices: a copy on each (ddp) or the model split over them (fsdp)."""
    threads: int | Auto = Field("auto", title="CPU threads", json_schema_extra=LOADING)
    """Cores the trainer takes. auto: all but what the page needs."""
    workers: int | Auto = Field("auto", title="Loader processes", json_schema_extra=LOADING)
    """Processes that prepare the next batches meanwhile. auto: one on a GPU, none on a CPU."""

    @property
    def device_count(self) -> int:
        """Devices that share the run, on each of its hosts."""
        return 1 if self.devices == "auto" else self.devices

    @property
    def warmup_ratio(self) -> float:
        """Share of the steps over which the rate rises; none for a constant schedule unless `warmup` was set."""
        return 0.0 if self.schedule == "constant" and "warmup" not in self.model_fields_set else self.warmup

    def accumulation_steps(self, rows: int) -> int:
        """Batches per optimizer step for `rows` rows: as ordered, else 4, lowered until the run has MIN_STEPS."""
        if self.accumulation != "auto":
            return self.accumulation
        batches = math.ceil(rows / self.batch_size) * self.epochs
        return int(min(DEFAULT_ACCUMULATION, max(1, batches // MIN_STEPS)))

    def effective_batch(self, rows: int) -> int:
        """Rows per optimizer step on one device."""
        return self.batch_size * self.accumulation_steps(rows)

    def steps(self, rows: int) -> int:
        """Optimizer steps of the whole run."""
        batches = math.ceil(rows / self.batch_size)
        return self.max_steps or max(1, math.ceil(math.ceil(batches / self.accumulation_steps(rows)) * self.epochs))

    @model_validator(mode="after")
    def _check_auto_bounds(self) -> Training:
        for key in (
            *("accumulation", "eval_every", "save_every", "devices", "threads"),
            *("micro_batch", "checkpointed_layers"),
        ):
            value = getattr(self, key)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{key} should be auto or at least 1")
        if isinstance(self.workers, int) and not 0 <= self.workers <= 64:
            raise ValueError("workers should be auto or 0 to 64")
        return self
