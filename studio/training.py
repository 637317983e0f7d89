"""Training settings that belong to every method: one line each, with bounds and help."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studio.knob import EVALUATION, LOADING, OPTIMISATION, PRECISION, TRACKERS

Auto = Literal["auto"]
DEFAULT_ACCUMULATION = 4  # 4 rows × 4: the effective batch of 16 that the LoRA tutorials use
MIN_STEPS = 60  # below about this many steps a LoRA at its usual rate has hardly begun to learn


class Training(BaseModel):
    """How long, how fast, in which precision. studio/auto.py and studio/resolve.py resolve `auto`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float = Field(
        3,
        gt=0,
        le=1000,
        title="Epochs",
        description="How often the whole data is gone through. More learns more, and in the end by heart.",
    )
    max_steps: int | None = Field(
        None,
        ge=1,
        title="Steps",
        description="Stop after this many optimizer steps instead of after epochs.",
        json_schema_extra=OPTIMISATION,
    )
    batch_size: int = Field(
        4,
        ge=1,
        le=1024,
        title="Batch size",
        description="Rows worked on at once. More is faster on a GPU and takes more memory.",
    )
    accumulation: Auto | int = Field(
        "auto",
        title="Gradient accumulation",
        description="Batches gathered before one optimizer step. Effective batch = batch size × accumulation; costs "
        "no memory. auto: 4, fewer on small data, so that the run has steps enough to learn.",
    )
    micro_batch: Auto | int = Field(
        "auto",
        title="Tokens at once",
        description="Tokens that go through the model in one pass, at least the longest row; the effective batch and "
        "what is learnt stay. auto: on a GPU as many as keep it busy and fit.",
        json_schema_extra=PRECISION,
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        title="Learning rate",
        description="Size of a step. Left out: the method's own. Too high: the loss jumps; too low: nothing is learnt.",
    )
    schedule: Literal[
        "cosine", "linear", "constant", "constant_with_warmup", "cosine_with_min_lr", "polynomial", "inverse_sqrt"
    ] = Field(
        "cosine",
        title="Schedule",
        description="How the learning rate falls over the run.",
        json_schema_extra=OPTIMISATION,
    )
    warmup: float = Field(
        0.03,
        ge=0,
        lt=1,
        title="Warm-up",
        description="Share of the steps over which the rate rises from zero.",
        json_schema_extra=OPTIMISATION,
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Weight decay",
        description="Pulls trained weights towards zero; a little regularises.",
        json_schema_extra=OPTIMISATION,
    )
    max_grad_norm: float = Field(
        1.0,
        ge=0,
        le=1000,
        title="Max gradient norm",
        description="Longer gradients are shortened to this; 0 switches it off. Prevents jumps.",
        json_schema_extra=OPTIMISATION,
    )
    neftune: float | None = Field(
        None,
        gt=0,
        le=100,
        title="NEFTune noise",
        description="Noise on the embeddings (alpha, often 5) that can make answers better on small data.",
        json_schema_extra=OPTIMISATION,
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        title="Label smoothing",
        description="Takes this share of certainty off every right token. Needs full logits.",
        json_schema_extra=OPTIMISATION,
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        title="Precision",
        description="Number format of the base model. auto: bf16 where the device computes in it.",
        json_schema_extra=PRECISION,
    )
    weights: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        title="Trained weights",
        description="Number format of what is trained. auto: float32. bf16 halves the memory of full fine-tuning; "
        "every step is rounded at random, so that small ones are not lost.",
        json_schema_extra=PRECISION,
    )
    checkpointing: bool | Auto = Field(
        "auto",
        title="Gradient checkpointing",
        description="Computes activations twice instead of keeping them: about a third slower, far less memory. "
        "auto: only when the estimate says it is needed.",
        json_schema_extra=PRECISION,
    )
    checkpointed_layers: Auto | int = Field(
        "auto",
        title="Checkpointed layers",
        description="How many layers gradient checkpointing covers, from the first on. auto: as many as needed; all "
        "where it is switched on.",
        json_schema_extra=PRECISION,
    )
    packing: bool | Auto = Field(
        "auto",
        title="Packing",
        description="Puts several short rows into one, without mixing them: no padding, fewer steps.",
        json_schema_extra=PRECISION,
    )
    optimizer: str = Field(
        "auto",
        pattern=r"^[a-z0-9_]+$",
        title="Optimizer",
        description="auto: fused AdamW. adamw_8bit and paged_adamw_8bit save memory on CUDA; adafactor saves more.",
        json_schema_extra=OPTIMISATION,
    )
    loss: Literal["auto", "chunked", "full"] = Field(
        "auto",
        title="Loss",
        description="chunked: the head is applied to trained tokens only, some at a time; same loss, less memory.",
        json_schema_extra=PRECISION,
    )
    attention: Literal["auto", "sdpa", "eager", "flash"] = Field(
        "auto",
        title="Attention",
        description="Which attention kernel. auto: the fastest one installed.",
        json_schema_extra=PRECISION,
    )
    fused_kernels: bool | Auto = Field(
        "auto",
        title="Fused kernels",
        description="liger-kernel's norms, rotary positions and feed-forwards: fewer passes over memory on NVIDIA "
        "cards. auto: where the package is installed and the model's family is proved.",
        json_schema_extra=PRECISION,
    )
    compile: bool = Field(
        False,
        title="torch.compile",
        description="Compiles the model first: some minutes once, then 10-30 % faster on a GPU with equal lengths.",
        json_schema_extra=PRECISION,
    )
    seed: int = Field(
        42,
        ge=0,
        lt=2**32,
        title="Seed",
        description="Same seed, same data, same device: same result.",
        json_schema_extra=OPTIMISATION,
    )
    log_every: int = Field(
        1, ge=1, title="Log every", description="Steps between two points of the curve.", json_schema_extra=EVALUATION
    )
    eval_every: int | Auto = Field(
        "auto",
        title="Evaluate every",
        description="Steps between two evaluations. auto: ten times in the run.",
        json_schema_extra=EVALUATION,
    )
    save_every: int | Auto = Field(
        "auto",
        title="Save every",
        description="Steps between two checkpoints. auto: as often as evaluations.",
        json_schema_extra=EVALUATION,
    )
    keep_checkpoints: int = Field(
        2,
        ge=1,
        le=1000,
        title="Checkpoints kept",
        description="Older ones are deleted once a newer one is complete.",
        json_schema_extra=EVALUATION,
    )
    early_stopping: int | None = Field(
        None,
        ge=1,
        title="Early stopping",
        description="Stop after this many evaluations without a better held-out loss.",
        json_schema_extra=EVALUATION,
    )
    keep_best: bool = Field(
        False,
        title="Keep the best",
        description="The result is the best checkpoint, not the last: that with the lowest held-out loss, or the best "
        "on the frontier of loss and forgetting (see Best by).",
        json_schema_extra=EVALUATION,
    )
    keep_general: float = Field(
        0.0,
        ge=0,
        le=100,
        title="Keep general abilities",
        description="A brake on forgetting: every step also looks at some general prompts, and is penalised for "
        "answering them otherwise than the base. 0: off; 1 is a good start; more forgets less and learns slower. "
        "Costs up to 256 tokens a step.",
    )
    keep_general_by: Literal["kl", "replay"] = Field(
        "kl",
        title="Keep by",
        description="kl: the base's probabilities of every next token. replay: the answers that the base itself "
        "writes to the prompts, trained on like data.",
        json_schema_extra=OPTIMISATION,
    )
    best_by: Literal["auto", "loss", "frontier"] = Field(
        "auto",
        title="Best by",
        description="What the best checkpoint is chosen by. loss: held-out loss alone. frontier: held-out loss plus "
        "what was forgotten (KL to the base), both per token. auto: frontier where forgetting is measured.",
        json_schema_extra=EVALUATION,
    )
    forgetting: bool | Auto = Field(
        "auto",
        title="Measure forgetting",
        description="Asks general questions before, during and after, and compares with the base. auto: as many as "
        "add at most 4 % to the run's work, none in a run too short for 20.",
        json_schema_extra=EVALUATION,
    )
    sample_prompts: tuple[str, ...] = Field(
        (),
        max_length=8,
        title="Sample prompts",
        description="Asked at every evaluation, so that one can read how the answers change. Empty: held-out ones.",
        json_schema_extra=EVALUATION,
    )
    samples: int = Field(
        3,
        ge=0,
        le=8,
        title="Held-out samples",
        description="Where no sample prompts are given, so many questions of the held-out rows are asked. Samples take "
        "at most 3 % of the run's time.",
        json_schema_extra=EVALUATION,
    )
    probe: bool | Auto = Field(
        "auto",
        title="Probe",
        description="Runs the longest batch once before the start, so that a run that would die late dies at once. "
        "auto: not on a CPU where the estimate leaves half of the memory free.",
        json_schema_extra=PRECISION,
    )
    report_to: tuple[Literal["trackio", "tensorboard", "wandb", "mlflow", "swanlab"], ...] = Field(
        (),
        title="Report to",
        description="Trackers to send metrics to as well. All stay on this computer; wandb and swanlab send where "
        "their key is in the environment.",
        json_schema_extra=TRACKERS,
    )
    devices: int | Auto = Field(
        "auto", title="Devices", description="How many devices share the run. auto: one.", json_schema_extra=LOADING
    )
    sharding: Literal["auto", "ddp", "fsdp"] = Field(
        "auto",
        title="Sharding",
        description="On several devices: a copy on each (ddp) or the model split over them (fsdp).",
        json_schema_extra=LOADING,
    )
    threads: int | Auto = Field(
        "auto",
        title="CPU threads",
        description="Cores the trainer takes. auto: all but what the page needs.",
        json_schema_extra=LOADING,
    )
    workers: int | Auto = Field(
        "auto",
        title="Loader processes",
        description="Processes that prepare the next batches meanwhile. auto: one on a GPU, none on a CPU.",
        json_schema_extra=LOADING,
    )

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
