"""python -m tests.readme: write the README's tables anew, from the code and from what was measured
(tests/bench/results).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from studio.commands.methods import SECTIONS, knobs
from studio.home import PROJECT
from studio.knob import GROUPS
from studio.methods import METHODS
from studio.rewards import REWARDS
from studio.stages import STAGES
from tests import families

FILE = PROJECT / "README.md"
RESULTS = PROJECT / "tests" / "bench" / "results"
WATCHED = (
    "question, alone, median",
    "question, training, median",
    "tokens/s, nobody looks",
    "tokens/s, a page open",
    "a bare gradio page, nobody looks",
    "this page, nobody looks",
)  # rows of bench busy that are told beside those with a limit


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def methods() -> str:
    """One row a method: rate, knobs, whether it merges, when to take it."""
    return table(
        ["method", "rate", "knobs", "merges", "when"],
        [
            [
                f"`{name}`",
                f"{method.learning_rate:.0e}".replace("e-0", "e-"),
                ", ".join(f"`{knob['key']}`" for knob in knobs(method)),
                "yes" if method.mergeable else "no",
                method.advice,
            ]
            for name, method in METHODS.items()
        ],
    )


def stages() -> str:
    """One row a stage: what it learns from, knobs, and when to take it."""
    return table(
        ["stage", "learns from", "knobs", "when"],
        [
            [f"`{name}`", stage.examples, ", ".join(f"`{knob['key']}`" for knob in knobs(stage)) or "—", stage.advice]
            for name, stage in STAGES.items()
        ],
    )


def settings() -> str:
    """One row a group: the keys of an order that belong to no method."""
    names = {None: "at first sight", **GROUPS}
    keys: dict[str | None, list[str]] = {group: [] for group in names}
    for section, kind in SECTIONS.items():
        for knob in knobs(kind):
            keys[knob["group"]].append(f"`{section}.{knob['key']}`")
    return table(["group", "settings"], [[names[group], ", ".join(listed)] for group, listed in keys.items()])


def rewards() -> str:
    """One row a reward: its name, which answers get how much, and its knobs."""
    return table(
        ["reward", "what it gives", "knobs"],
        [
            [
                f"`{name}`",
                reward.about,
                ", ".join(f"`{knob}`" for knob in reward.model_fields if knob not in ("name", "weight")) or "—",
            ]
            for name, reward in REWARDS.items()
        ],
    )


def proved() -> str:
    """One row a family: what tests/families.py says is proved of it."""
    columns: dict[str, Iterable[str]] = {
        "packed": families.ROWS,
        "padded without a mask": families.ROWS,
        "every method": families.METHODS,
        "GGUF": families.GGUF,
        "merged": families.MERGED,
        "text for text": families.LEAVES,
    }
    return table(
        ["family", *columns],
        [
            [f"`{family}`", *("yes" if family in column else "—" for column in columns.values())]
            for family in families.ALL
        ],
    )


def compared() -> str:
    """What `compare-methods` measured."""
    return table(
        ["method", "trained", "share", "held-out loss before", "after", "seconds", "peak RAM"],
        [
            [
                row["label"],
                f"{row['trainable']:,}",
                f"{row['share']:.3g} %",
                f"{row['eval_loss_before']:.3f}",
                f"{row['eval_loss']:.3f}",
                f"{row['train_seconds']:.0f}",
                f"{row['peak_memory'] / 1e9:.2f} GB",
            ]
            for row in _results("methods")
        ],
    )


def speed(name: str) -> str:
    """What `bench train` measured, kept under a name."""
    return table(
        ["trainer", "tokens/s", "seconds to the first step", "peak RAM", "held-out loss", "ours is faster"],
        [
            [
                row["what"],
                f"{row['tokens_per_second']:.0f}",
                f"{row['first_step']:.0f}",
                f"{row['peak_memory'] / 1e9:.2f} GB",
                f"{row['loss']:.3f}",
                f"{row['times']:.1f}×",
            ]
            for row in _results(name)
        ],
    )


FLOAT32 = {
    "LoRA": "train_float32_lora",
    "LoRA, rows of fewer than 160 letters": "train_float32_short",
    "full fine-tuning": "train_float32_full",
}


def speed_in_float32() -> str:
    """What `bench train --peer trl-float32` measured on one core, by processor time."""
    rows = []
    for label, name in FLOAT32.items():
        ours, theirs = _results(name)
        sides = (ours, theirs)
        rows.append(
            [
                label,
                *(f"{side['tokens_per_cpu_second']:.0f}" for side in sides),
                f"{theirs['times_by_cpu']:.1f}×",
                *(f"{side['peak_memory'] / 1e9:.2f} GB" for side in sides),
                *(f"{side['loss']:.3f}" for side in sides),
            ]
        )
    return table(
        [
            *("method", "tokens a processor second: ours", "TRL's", "ours is faster"),
            *("peak RAM: ours", "TRL's", "held-out loss: ours", "TRL's"),
        ],
        rows,
    )


def kernels() -> str:
    """What tests/bench/kernels.py counted."""
    return table(
        ["method", "as", "kernels forward", "backward", "bytes forward", "backward"],
        [
            [
                row["method"],
                row["way"],
                str(row["forward"]),
                str(row["backward"]),
                f"{row['bytes_forward']:.0f}",
                f"{row['bytes_backward']:.0f}",
            ]
            for row in _results("kernels")
        ],
    )


def startup() -> str:
    """What tests/bench/startup.py measured: seconds of processor time."""
    rows = _results("startup")
    return table(
        ["part", "processor seconds before", "now"],
        [[row["part"], *(f"{row[key]:.1f}" for key in ("cpu_before", "cpu_now"))] for row in rows],
    )


def reach() -> str:
    """What `bench reach` computed."""
    return table(
        ["card", "method", "largest model", "its longest rows", "longest rows of Llama-3.1-8B"],
        [
            [
                f"{row['card']} ({row['name']})",
                row["method"],
                (row["largest"] or "—").partition("/")[2] or "—",
                *("—" if row[key] is None else f"{row[key]:,}" for key in ("rows", "rows_8b")),
            ]
            for row in _results("reach")
        ],
    )


def watched() -> str:
    """What `bench busy` measured: answers beside a training, an idle page, and what an open page costs the run."""
    found = [row for row in _results("busy") if row["limit"] is not None or "least" in row or row["what"] in WATCHED]
    return table(
        ["on two cores, while a run trains", "measured", "limit"],
        [
            [
                row["what"],
                f"{row['value']:g} {row['unit']}".strip(),
                f"at least {row['least']:g}"
                if "least" in row
                else ""
                if row["limit"] is None
                else f"{row['limit']:g} {row['unit']}".strip(),
            ]
            for row in found
        ],
    )


def _results(name: str) -> list[dict[str, Any]]:
    found = json.loads((RESULTS / f"{name}.json").read_text())
    return found["rows"] if isinstance(found, dict) else found


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "stages": stages,
    "settings": settings,
    "rewards": rewards,
    "families": proved,
    "compared": compared,
    "speed": partial(speed, "train_lora"),
    "speed of full": partial(speed, "train_full"),
    "speed in float32": speed_in_float32,
    "startup": startup,
    "kernels": kernels,
    "reach": reach,
    "watched": watched,
}


def written(text: str) -> str:
    """The README with every table between its <!-- name --> and <!-- end --> made anew."""
    for name, make in TABLES.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)",
            lambda found, made=make: found[1] + made() + found[2],
            text,
            flags=re.S,
        )
    return text


if __name__ == "__main__":
    FILE.write_text(written(FILE.read_text()))
