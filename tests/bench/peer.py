"""python -m tests.bench.peer SIDE RUN-FOLDER ANSWER-FILE: the same order carried out by TRL's SFTTrainer, for `bench
train`.

The rows are ours, tokenized and in the order our run meets them; only the trainer is theirs. What it says is written as
JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed

from studio import data
from studio.auto import installed
from studio.base import source
from studio.config import RunConfig
from studio.run import Run
from studio.tokens import Encoder
from studio.worker.batches import EffectiveBatchSampler
from studio.worker.loss import loss
from studio.worker.packing import collate, count_target_tokens


class Watch(TrainerCallback):
    """The moment and the tokens so far at the end of each step, and each step's loss."""

    def __init__(self) -> None:
        self.points, self.losses = [], []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.points.append((time.monotonic(), int(state.num_input_tokens_seen)))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def rows(
    config: RunConfig, folder: Path, steps: int, effective: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(training rows in the order our run meets them, held-out rows)."""
    encoder = Encoder.from_order(config.data, folder)
    prepared = data.prepare(config.data, encoder, config.training.seed)
    order, numbers, epoch = EffectiveBatchSampler(len(prepared.train), effective, config.training.seed), [], 0
    while len(numbers) < steps * effective:
        order.set_epoch(epoch)
        numbers += [number for step in order for number in step]
        epoch += 1
    return [dict(prepared.train[number]) for number in numbers[: steps * effective]], list(prepared.eval)


def adapter(config: RunConfig) -> Any:
    """The LoRA of our order as peft's own config; None for full fine-tuning."""
    from peft import LoraConfig

    method = config.method
    if not method.adapter:
        return None
    return LoraConfig(
        r=method.rank,
        lora_alpha=method.effective_alpha,
        lora_dropout=method.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def trainer(side: str, config: RunConfig, folder: Path, train: list[dict[str, Any]], watch: Watch) -> Any:
    """SFTTrainer: its defaults, or its best plain settings."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    training, best, card = config.training, side == "trl-best", torch.cuda.is_available()
    float32 = side == "trl-float32"
    plain = best_settings(card) if best or float32 else {"train_sampling_strategy": "sequential"}
    if float32:
        plain |= {"bf16": False}
    elif half() == torch.float16:
        plain |= {"bf16": False, "fp16": True}
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=training.max_steps,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        max_length=config.data.max_length,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        include_num_input_tokens_seen="non_padding",  # rows of like length are met in another order
        **plain,
    )
    quantized = config.method.quantized() if hasattr(config.method, "quantized") else None
    options = quantized.options(half()) if quantized else {}
    if best and card:
        options["attn_implementation"] = flash() or "sdpa"
    dtype = (
        half() if best and config.method.adapter else torch.float32
    )  # a full fine-tune keeps float32 weights on every side
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(train),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=adapter(config),
        callbacks=[watch],
    )


def best_settings(card: bool) -> dict[str, Any]:
    """TRL's quickest for the same rows a step: nothing is computed twice; on a GPU also Liger's kernels, and rows laid
    end to end without padding (padding_free, which is packing that leaves each step its own rows; it needs flash
    attention, which keeps them apart). A GPU without flash attention, and a CPU, group rows of like length instead.
    """
    free = card and flash() is not None
    settings: dict[str, Any] = {
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential" if free else "group_by_length",
    }
    return (
        settings
        | ({"padding_free": True} if free else {})
        | ({"use_liger_kernel": True} if card and installed("liger_kernel") else {})
    )


def half() -> torch.dtype:
    """The 16 bits that this device computes in: fp16 on cards before Ampere."""
    card = torch.cuda.is_available()
    return torch.float16 if card and not torch.cuda.is_bf16_supported(including_emulation=False) else torch.bfloat16


def flash() -> str | None:
    """The flash attention that transformers can use here: its own package or that of the Hub's kernels; None where
    neither or no Ampere card is.
    """
    if torch.cuda.get_device_capability() < (8, 0):
        return None
    return (
        "flash_attention_2"
        if installed("flash_attn")
        else "kernels-community/flash-attn2"
        if installed("kernels")
        else None
    )


def held_out(model: Any, rows: list[dict[str, Any]], device: torch.device, dtype: torch.dtype) -> float:
    """Mean loss over the trained tokens of the held-out rows, by our function, with full logits."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for row in rows:
            batch = collate([row], packed=False)
            piece = {key: batch[key].to(device) for key in ("input_ids", "labels")}
            total += loss(model, piece, "full", dtype).item()
            count += count_target_tokens(row)
    return total / max(1, count)


def main(side: str, folder: Path, told: Path) -> None:
    config = Run(folder).config
    set_seed(config.training.seed)
    effective = config.training.batch_size * config.training.accumulation
    base = source.fetch(config.model)
    train, held = rows(config, base, config.training.max_steps, effective)
    watch = Watch()
    theirs = trainer(side, config, base, train, watch)
    theirs.train()
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_reserved() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told.write_text(
        json.dumps(
            {
                "points": watch.points,
                "peak_memory": peak,
                "train_loss": round(sum(watch.losses[: len(watch.points)]) / len(watch.points), 4),
                "loss": held_out(
                    theirs.model, held, theirs.args.device, torch.float32 if side == "trl-float32" else half()
                ),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
