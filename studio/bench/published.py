"""Published measurements of others' training loops against the estimate: every row with what was measured and how far off we are.

A row says in words how its loop computes; `loop` turns that into a Stack. No coefficient of the tape is fitted. What was settled by
looking at rows stands in LOOKED, by source; every row says it again as `calibrated`.
"""

from __future__ import annotations

import csv
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio import model
from studio.footprint import Footprint, of
from studio.memory.anatomy import anatomy
from studio.memory.overhead import CUBLAS, GAP
from studio.memory.stack import Stack
from studio.memory.states import states
from studio.memory.step import step
from studio.model import ModelFacts

HERE = Path(__file__).parent
TABLE = HERE / "published_memory.csv"
GIB = 2**30
LOOKED = {
    "fitcheck": "no: met at the first try", "can-i-finetune": "no: met at the first try",
    "fms-acceleration": "which copies of the logits its loss keeps", "peft": "the share reserved beyond allocated, and the longest batch"}
LENGTH = 704  # tokens of the longest batch of peft's comparison, which has rows up to 768; not published


def rows(table: Path = TABLE) -> list[dict[str, Any]]:
    """One dict a row: what was run, measured and estimated GiB, error; `why` where this stack cannot produce the case."""
    with open(table, newline="") as file:
        return [_row(number, row) for number, row in enumerate(csv.DictReader(file), 1)]


def _row(number: int, row: dict[str, str]) -> dict[str, Any]:
    told = {"row": number, "model": row["model"], "method": row["method"], "batch": row["batch_size"], "length": row["seq_len"], "gpu": row["gpu"],
            "source": source(row), "quantity": "reserved" if "max_memory_reserved" in row["notes"] else "allocated", "measured": float(row["measured_gib"])}
    why = impossible(row)
    if why:
        return told | {"why": why}
    facts = facts_of(row["model"])
    shapes, footprint = tuned(row, facts)
    stack = loop(row, facts, footprint)
    walked = step(anatomy(facts), stack, footprint, states(facts, footprint, shapes, stack))
    reserved = GAP[1] * (walked.peak - walked.by_moment["load"]) if told["quantity"] == "reserved" else 0
    guess = (walked.peak + CUBLAS + reserved) / GIB
    return told | {"estimate": round(guess, 4), "error": round(guess / told["measured"] - 1, 4), "moment": walked.moment,
                   "calibrated": LOOKED.get(source(row), "no")}


def source(row: dict[str, str]) -> str:
    for word in ("fitcheck", "can-i-finetune", "fms-acceleration", "peft method_comparison"):
        if word.lower() in row["source"].lower():
            return word.split()[0]
    return row["source"][:20]


def impossible(row: dict[str, str]) -> str | None:
    """Why a case is outside: a method we do not have, or a model whose shapes are not in models.json."""
    if row["model"] not in _models():
        return "shapes of the model are not known"
    method = re.split(r"[ -]", row["method"])[0]
    ours = method in ("lora", "qlora", "full", "prompt_tuning", "prefix_tuning") and "dora" not in row["method"]
    return None if ours else f"no method {row['method']}"


@lru_cache
def _models() -> dict[str, dict[str, Any]]:
    return json.loads((HERE / "models.json").read_text())


@lru_cache
def facts_of(name: str) -> ModelFacts:
    """Facts of a well-known model from its config values."""
    config = _models()[name]
    return facts_of(config["as"]) if "as" in config else model.from_config(config)


def tuned(row: dict[str, str], facts: ModelFacts) -> tuple[dict[str, tuple[int, ...]], Footprint]:
    """Trained shapes and footprint of a row's method."""
    name, rank = row["method"], int(row["rank"] or 0)
    held = ("nf4", "no double" not in name) if name.startswith("qlora") else None
    if name == "full":
        shapes = {tensor: item.shape for tensor, item in facts.tensors.items()}
        return shapes, of(shapes, each=2 if "fp32" not in row["precision"] else 4)
    if name.startswith("prompt"):
        shapes = {"prompt_encoder.embedding": (rank, facts.hidden)}
        return shapes, of(shapes, virtual=rank)
    if name.startswith("prefix"):
        shapes = {"prompt_encoder.embedding": (rank, 2 * facts.layers * facts.kv_heads * facts.head_dim)}
        return shapes, of(shapes, prefix=rank)
    words = row["target_modules"].split("|")
    chosen = {module: widths for module, widths in facts.linears().items() if module.rsplit(".", 1)[-1] in words}
    shapes = {}
    for module, (inputs, outputs) in chosen.items():
        shapes |= {f"{module}.lora_A": (rank, inputs), f"{module}.lora_B": (outputs, rank)}
    found = re.search(r"dropout (0\.\d+)", row["notes"])
    return shapes, of(shapes, quantized=held, dropout=float(found[1]) if found else 0.0)


def loop(row: dict[str, str], facts: ModelFacts, footprint: Footprint) -> Stack:
    """How the row's loop computes, from its words."""
    words, notes = row["precision"], row["notes"]
    kbit = "kbit" in words
    autocast = 2 if "autocast" in words and "no autocast" not in words else 0
    foak, trainer = "foak" in notes, "SFTTrainer" in notes
    attention = "eager" if "attn eager" in notes else "flash" if "flash" in notes else "sdpa"
    checkpointing = row["grad_checkpointing"] == "True"
    compared = "method_comparison" in row["source"]  # peft's: padded batches
    length = int(row["seq_len"]) if row["seq_len"].isdigit() else LENGTH
    own_loss = facts.model_type == "gpt_bigcode"
    return Stack(
        batch=int(row["batch_size"]), length=min(length, facts.max_length or length) if trainer else length, base=2, stream=4 if kbit else 2,
        autocast=autocast, attention=attention, mask=compared,
        expanded=compared or "expanded" in notes, checkpointing=checkpointing, head="fused" if re.search("liger(?!_)", config_word(notes)) else "full",
        output=2 if own_loss else 0 if trainer else 4, shifted=trainer, early_upcast=trainer and "requirements" in notes,
        in_place=foak and not own_loss, raw_loss=own_loss,
        optimizer=optimizer(row["optimizer"]), kbit=kbit, fused_norms=foak and not own_loss, fused_adapters=foak and not own_loss,
        input_grads=checkpointing and not footprint.weights)


def config_word(notes: str) -> str:
    """fms' framework_config, which names its kernels."""
    found = re.search(r"framework_config (\S+?);", notes)
    return found[1] if found else ""


def optimizer(words: str) -> str:
    if "paged" in words or "8bit" in words:
        return "paged_adamw_8bit"
    return "adamw_torch_foreach" if "foreach" in words else "adamw_torch_fused"
