"""Published measurements of others' training loops against the estimate: every row with what was measured and how far
off we are.

A row says in words how its loop computes; `row_loop` turns that into a TrainingLoop. No coefficient of the tape is
fitted. What was settled by looking at rows stands in LOOKED, by source; every row says it again as `calibrated`.
"""

from __future__ import annotations

import csv
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio import cards, model
from studio.footprint import Footprint, of
from studio.memory import tables
from studio.memory.architecture import read_architecture
from studio.memory.overhead import CONTEXT, CUBLAS, gap
from studio.memory.states import states
from studio.memory.step import step
from studio.memory.training_loop import TrainingLoop
from studio.model import ModelFacts

TABLE = Path(__file__).parent / "published_memory.csv"
GIB = 2**30
FLOAT32 = re.compile(
    r"(fp32|float32)[ _](weights|master|params|parameters|base|model)|dtype[= ](torch\.)?float32|^(fp32|float32)\b"
)
FED = (
    "down_proj",
    "fc2",
    "wo",
    "dense_4h_to_h",
    "c_proj",
    "w2",
)  # (IA)3 scales what goes into these, elsewhere what comes out
LOOKED = {
    "fitcheck": "one term, eager attention's additive mask, found by rows 15 and 17",
    "can-i-finetune": "no: met at the first try",
    "fms-acceleration": "which copies of the logits its loss keeps",
    "peft": "the share reserved beyond allocated, and the longest batch",
}
LENGTH = 704  # tokens of the longest batch of peft's comparison, which has rows up to 768; not published


def rows(table: Path = TABLE) -> list[dict[str, Any]]:
    """One dict a row: what was run, measured and estimated GiB, error; `why` where this loop cannot produce the
    case.
    """
    with open(table, newline="") as file:
        return [_row(number, row) for number, row in enumerate(csv.DictReader(file), 1)]


def _row(number: int, row: dict[str, str]) -> dict[str, Any]:
    told = {
        "row": number,
        "model": row["model"],
        "method": row["method"],
        "batch": row["batch_size"],
        "length": row["seq_len"],
        "gpu": row["gpu"],
        "source": source(row),
        "quantity": quantity(row["notes"]),
        "measured": float(row["measured_gib"]),
    }
    why = impossible(row)
    if why:
        return told | {"why": why}
    facts = facts_of(row["model"])
    footprint = tuned(row, facts)
    loop = row_loop(row, facts, footprint)
    walked = step(read_architecture(facts), loop, footprint, states(facts, footprint, loop))
    beyond = 0 if told["quantity"] == "allocated" else int(gap(loop)[1] * (walked.peak - walked.standing))
    if told["quantity"] == "card":
        card = cards.find(row["gpu"])
        beyond += card.context if card else CONTEXT
    guess = (walked.peak + CUBLAS + beyond) / GIB
    return told | {
        "estimate": round(guess, 4),
        "error": round(guess / told["measured"] - 1, 4),
        "moment": walked.peak_phase,
        "calibrated": LOOKED.get(source(row), "no"),
    }


def quantity(notes: str) -> str:
    """What was measured: tensors (allocated), what the allocator holds (reserved), or what the card shows, context and
    all.
    """
    first = re.search(r"max_memory_reserved|allocated|reserved|nvidia-smi|nvml|process|card", notes)
    return (
        {"max_memory_reserved": "reserved", "reserved": "reserved", "allocated": "allocated"}.get(first[0], "card")
        if first
        else "allocated"
    )


def source(row: dict[str, str]) -> str:
    for word in ("fitcheck", "can-i-finetune", "fms-acceleration", "peft method_comparison"):
        if word.lower() in row["source"].lower():
            return word.split()[0]
    return row["source"][:20]


METHODS = {
    "p-tuning": "p-tuning",
    "ptuning": "p-tuning",
    "prompt-encoder": "p-tuning",
    "prompt": "prompt",
    "prefix": "prefix",
    "prefixtuning": "prefix",
    "ia3": "ia3",
    "full": "full",
    "qlora": "qlora",
    "qdora": "qlora",
    "lora": "lora",
    "dora": "lora",
}  # a row's word -> our name
TUNED = {
    "instruct",
    "chat",
    "it",
    "hf",
    "base",
    "pt",
    "coder",
    "math",
    "unsloth",
    "bnb",
    "4bit",
    "gptq",
    "awq",
    "fp16",
    "meta",
}  # same shapes


def method_of(row: dict[str, str]) -> str | None:
    """Our name of a row's method; None where we have none like it."""
    name = row["method"].lower().replace("_", "-")
    return next((ours for word, ours in METHODS.items() if re.match(rf"{word}($|[^a-z])", name)), None)


def impossible(row: dict[str, str]) -> str | None:
    """Why a case is outside: a method we do not have, or a model whose shapes are not in models.json."""
    if method_of(row) is None:
        return f"no method {row['method']}"
    return None if known(row["model"]) else "shapes of the model are not known"


@lru_cache
def _models() -> dict[str, dict[str, Any]]:
    return json.loads(tables.MODELS.read_text())


@lru_cache
def known(name: str) -> str | None:
    """The entry of models.json that a name means: by itself, or by its last part without what a tuned or packed copy
    adds.
    """
    models = _models()
    if name in models:
        return name
    for versions in (True, False):
        plain = {_plain(one, versions): one for one in reversed(models)}
        if _plain(name, versions) in plain:
            return plain[_plain(name, versions)]
    return None


def _plain(name: str, versions: bool) -> str:
    """The words of a model's name that tell its shapes."""
    words = name.rpartition("/")[2].lower().split("-")
    return "-".join(
        word for word in words if word not in TUNED and (versions or not re.fullmatch(r"v\d+(\.\d+)?", word))
    )


@lru_cache
def facts_of(name: str) -> ModelFacts:
    """Facts of a well-known model from its config values."""
    config = _models()[known(name)]
    return facts_of(config["as"]) if "as" in config else model.from_config(config)


def tuned(row: dict[str, str], facts: ModelFacts) -> Footprint:
    """The footprint of a row's method."""
    name, method, rank = row["method"].lower(), method_of(row), int(row["rank"] or 0)
    words = re.split(r"[|, ]+", row["target_modules"])
    wide = 2 if re.search(r"adapters (in )?(bf16|fp16|bfloat16|float16)", row["precision"]) else 4
    if method == "full":
        shapes = {tensor: item.shape for tensor, item in facts.tensors.items()}
        return of(shapes, trained_itemsize=4 if FLOAT32.search(row["precision"]) else 2)
    if method in ("prompt", "p-tuning"):
        shapes = {"prompt_encoder.embedding": (rank or 20, facts.hidden_size)} | (
            _encoder(row, facts) if method == "p-tuning" else {}
        )
        return of(shapes, virtual=rank or 20, trained_itemsize=wide)
    if method == "prefix":
        shapes = {
            "prompt_encoder.embedding": (rank, 2 * facts.num_hidden_layers * facts.num_key_value_heads * facts.head_dim)
        }
        return of(shapes, prefix=rank, trained_itemsize=wide)
    every = "all-linear" in words or "all" in words
    chosen = {
        module: widths for module, widths in facts.linears().items() if every or module.rsplit(".", 1)[-1] in words
    }
    if method == "ia3":
        shapes = {
            f"{module}.ia3_l": (inputs if module.rsplit(".", 1)[-1] in FED else outputs,)
            for module, (inputs, outputs) in chosen.items()
        }
        return of(shapes, trained_itemsize=wide)
    shapes = {}
    for module, (inputs, outputs) in chosen.items():
        shapes |= {f"{module}.lora_A": (rank, inputs), f"{module}.lora_B": (outputs, rank)}
        if "dora" in name:
            shapes[f"{module}.lora_magnitude_vector"] = (outputs,)
    found = re.search(r"dropout (0?\.\d+)", row["notes"])
    return of(shapes, quantized=_held(name), dropout=float(found[1]) if found else 0.0, trained_itemsize=wide)


def _held(name: str) -> tuple[str, bool] | None:
    """How a row's base is packed: (kind, doubly)."""
    if "int8" in name or "8bit" in name or "8-bit" in name:
        return ("int8", False)
    return ("nf4", "no double" not in name) if name.startswith(("qlora", "qdora")) else None


def _encoder(row: dict[str, str], facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    """The network of p-tuning: hidden → inner → inner → hidden with biases, inner as the number of trained
    parameters tells.
    """
    told = re.search(r"trainable (\d+)", row["notes"])
    rest = (int(told[1]) if told else 0) - int(row["rank"] or 20) * facts.hidden_size
    inner = next(
        (
            size
            for size in range(8, 16385, 8)
            if size * facts.hidden_size * 2 + size * size + 2 * size + facts.hidden_size == rest
        ),
        128,
    )
    return {
        "prompt_encoder.mlp.0": (inner, facts.hidden_size),
        "prompt_encoder.mlp.2": (inner, inner),
        "prompt_encoder.mlp.4": (facts.hidden_size, inner),
    }


def row_loop(row: dict[str, str], facts: ModelFacts, footprint: Footprint) -> TrainingLoop:
    """How the row's loop computes, from its words."""
    words, notes = row["precision"], row["notes"]
    kbit = "kbit" in words
    autocast = 2 if "autocast" in words and "no autocast" not in words else 0
    each = 4 if FLOAT32.search(words) else 2
    foak, trainer = "foak" in notes, "SFTTrainer" in notes
    attention = "eager" if "attn eager" in notes else "flash" if "flash" in notes else "sdpa"
    checkpointing = row["grad_checkpointing"] == "True"
    compared = "method_comparison" in row["source"]  # peft's: padded batches
    length = int(row["seq_len"]) if row["seq_len"].isdigit() else LENGTH
    own_loss = facts.model_type == "gpt_bigcode"
    return TrainingLoop(
        batch=int(row["batch_size"]),
        length=min(length, facts.max_position_embeddings or length) if trainer else length,
        weight_itemsize=each,
        hidden_itemsize=4 if kbit else each,
        autocast_itemsize=autocast,
        fp16="fp16" in words or "float16" in words.replace("bfloat16", ""),
        attention=attention,
        mask=compared,
        repeats_kv=compared or "expanded" in notes,
        checkpointing=checkpointing,
        head="fused" if re.search("liger(?!_)", config_word(notes)) else "full",
        keeps_output=2 if own_loss else 0 if trainer else 4,
        shifted=trainer,
        early_upcast=trainer and "requirements" in notes,
        in_place=foak and not own_loss,
        loss_in_logits_dtype=own_loss,
        optimizer=optimizer(row["optimizer"]),
        kbit=kbit,
        fused_norms=foak and not own_loss,
        fused_adapters=foak and not own_loss,
        input_grads=checkpointing and not footprint.weights,
    )


def config_word(notes: str) -> str:
    """fms' framework_config, which names its kernels."""
    found = re.search(r"framework_config (\S+?);", notes)
    return found[1] if found else ""


def optimizer(words: str) -> str:
    words = words.lower()
    for word, name in (("adafactor", "adafactor"), ("lion", "lion"), ("sgd", "sgd")):
        if word in words:
            return f"{name}_8bit" if word == "lion" and re.search("8.?bit", words) else name
    if re.search("8.?bit", words):
        return "paged_adamw_8bit" if "paged" in words else "adamw_bnb_8bit"
    return (
        "paged_adamw_32bit"
        if "paged" in words
        else "adamw_torch_foreach"
        if "foreach" in words
        else "adamw_torch_fused"
    )
