"""The page on memory: an 8B model under full, LoRA and QLoRA line by line, and the tutorials' 7B table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio import cards, config, estimate, model
from studio.device import Device
from studio.memory.peak import CAUSES
from studio.memory.studio_loop import RowStatistics
from studio.model import ModelFacts

GIB = 2**30
MODELS = Path(__file__).with_name("models.json")
METHODS = ("full", "lora", "qlora")
EIGHT, SEVEN = "meta-llama/Llama-3.1-8B", "mistralai/Mistral-7B-v0.1"


def page(card: str = "NVIDIA A100 80GB", length: int = 2048, batch: int = 4) -> str:
    """The page as Markdown, generated from the estimate."""
    device = cards.device(card)
    estimates = {name: _estimate(EIGHT, name, length, batch, device) for name in METHODS}
    figures = list(estimates.values())
    lines = [
        f"## Where the memory of an 8B model goes ({batch} rows of {length} tokens, {device.name})",
        "",
        "| GiB | full | LoRA | QLoRA |",
        "|---|---:|---:|---:|",
        *(_row(cause, (f"{expected.by_cause[cause] / GIB:.2f}" for expected in figures)) for cause in CAUSES),
        _row("**expected**", (f"**{expected.total / GIB:.1f}**" for expected in figures)),
        _row("band", (f"{expected.low / GIB:.1f} to {expected.high / GIB:.1f}" for expected in figures)),
        _row("fits", ("yes" if expected.fits else "no" for expected in figures)),
        _row("checkpointing (auto)", ("on" if expected.checkpointing else "off" for expected in figures)),
    ]
    for name, expected in estimates.items():
        lines += ["", f"**{name}** ({expected.trainable:,} trained numbers; peak at {expected.peak_phase}):", ""]
        lines += [
            f"- {cause}, {expected.by_cause[cause] / GIB:.2f} GiB. {text}"
            for cause, text in expected.explained.items()
            if expected.by_cause[cause]
        ]
    return "\n".join([*lines, "", *_tutorials(), ""])


def _row(name: str, cells: Iterable[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


SAID = {"full": "60-120 GB", "lora": "16-24 GB", "qlora": "5-8 GB"}  # what tutorials say a 7B model needs
SIZES = (8, 12, 16, 24, 40, 48, 80, 141)  # GB of cards people have


@lru_cache(maxsize=1)
def seven() -> tuple[dict[str, Any], ...]:
    """The tutorials' table of a 7B model, at one row of 512 tokens: {method, said, total, card (GB, None: several)}."""
    rows = []
    for name in METHODS:
        expected = _estimate(SEVEN, name, 512, 1, cards.device("NVIDIA A100 80GB"), checkpointing=True)
        rows.append(
            {
                "method": name,
                "said": SAID[name],
                "total": expected.total,
                "card": next((size for size in SIZES if expected.high <= size * GIB * 0.97), None),
            }
        )
    return tuple(rows)


def _tutorials() -> list[str]:
    """What tutorials say a 7B model needs, beside ours."""
    lines = [
        "## The tutorials' table: a 7B model",
        "",
        "| method | tutorials say | here, 1 row of 512 tokens | cards it fits |",
        "|---|---|---:|---|",
    ]
    lines += [
        f"| {row['method']} | {row['said']} | {row['total'] / GIB:.1f} GiB | "
        f"{str(row['card']) + ' GB and more' if row['card'] else 'several cards'} |"
        for row in seven()
    ]
    return [
        *lines,
        "",
        "LLaMA-Factory's README gives 120 GB (full, mixed precision), 60 GB (pure bf16), 16 GB (LoRA) and 6 GB "
        "(QLoRA), whatever the batch.",
    ]


def facts_of(name: str) -> ModelFacts:
    """Facts of a model in models.json."""
    known = json.loads(MODELS.read_text())
    return model.from_config(known[known[name].get("as", name)])


def _estimate(
    name: str, method: str, length: int, batch: int, device: Device, checkpointing: bool | str = "auto"
) -> estimate.Estimate:
    order = config.build(
        {
            "data": {"train": "rows.json", "max_length": length},
            "method": method,
            "training": {"batch_size": batch, "precision": "bf16", "checkpointing": checkpointing},
        }
    )
    return estimate.estimate(
        facts_of(name), order, device, RowStatistics(10_000, 10_000 * length, 7_000 * length, length)
    )
