"""A race's or a plan's part of the report: the table of all settings, or the verdict with its curve."""

from __future__ import annotations

import html
from typing import Any

from studio import plan, race
from studio.export.html_table import table
from studio.run import Run

HEAD = (
    "place", "setting", "held-out loss before", "held-out loss", "trained parameters", "of the model",
    "memory alone (estimated)", "training seconds", "steps", "state"
)  # fmt: skip


def section(run: Run) -> str:
    """HTML; everything from data, names or a model is escaped."""
    answer = plan.answer(run)
    if answer:
        points = [
            (point["rows"], f"{point['loss']:.4f}", f"[{point['low']:.4f}, {point['high']:.4f}]")
            for point in answer["curve"]
        ]
        return (
            f"<h2>Verdict</h2><p><b>{html.escape(answer['sentence'])}</b></p>"
            + table(("rows", "held-out loss", "95 % band"), points)
            + f"<p>The base as it is: {answer['base_loss']:.4f}"
            + (f"; with examples in its prompt: {answer['few_shot_loss']:.4f}" if answer["few_shot_loss"] else "")
            + ".</p>"
        )
    return "<h2>Race of settings</h2>" + table(HEAD, [_cells(row) for row in race.table(run)])


def _cells(row: dict[str, Any]) -> list[str]:
    memory, share = row["estimated_memory"], row["share"]
    return [
        _known(row["place"]),
        row["label"],
        _loss(row["eval_loss_before"]),
        _loss(row["eval_loss"]),
        f"{row['trainable']:,}" if row["trainable"] else "–",
        f"{share:.3g} %" if share else "–",
        f"{memory / 2**30:.2f} GiB" if memory else "–",
        _known(row["train_seconds"]),
        f"{row['step']} / {_known(row['steps'])}",
        row["cause"] or row["state"],
    ]


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _known(value: Any) -> str:
    return "–" if value is None else str(value)
