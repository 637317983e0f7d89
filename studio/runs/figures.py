"""The figures of a run for people: in its report and in the terminal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any


def figures(summary: dict[str, Any]) -> list[tuple[str, Any]]:
    """[(name, figure with its unit)] of a run's summary: losses, steps, time, memory; what is not known is left out."""

    def gibibytes(value: float | None) -> str | None:
        return f"{value / 2**30:.2f} GiB" if value else None

    def loss(value: float | None) -> str | None:
        return None if value is None else f"{value:.4f}"

    rate, seconds = summary["tokens_per_second"], round(summary["seconds"])
    rows = [
        ("held-out loss before", loss(summary["eval_loss_before"])),
        ("held-out loss after", loss(summary["eval_loss"])),
        ("training loss", loss(summary["train_loss"])),
        *((name, loss(value) if isinstance(value, float) else value) for name, value in preferred(summary)),
        ("steps", f"{summary['step']} / {summary['steps']}" if summary["steps"] else summary["step"]),
        ("time (h:mm:ss)", str(timedelta(seconds=seconds)) if seconds else None),
        ("tokens a second", f"{rate:,.0f}" if rate else None),
        ("peak memory", gibibytes(summary["peak_memory"])),
        ("estimated memory", gibibytes(summary["estimated_memory"])),
        ("trained parameters", f"{summary['trainable']:,}" if summary["trainable"] else None),
    ]
    return [(name, value) for name, value in rows if value is not None]


def preferred(summary: dict[str, Any]) -> list[tuple[str, float | None]]:
    """The share of held-out pairs that a run tells apart, and their margin, before and after."""
    names = {"accuracy": "share of held-out pairs told apart", "margin": "margin of the rewards"}
    ends = {"before": summary.get("preference_before") or {}, "after": summary.get("preference") or {}}
    return [(f"{text} {end}", values.get(key)) for key, text in names.items() for end, values in ends.items() if values]
