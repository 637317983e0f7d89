"""The evaluation and the leaderboard of a run, as rows for its model card and its report."""

from __future__ import annotations

from collections.abc import Sequence

from studio.run import Run
from studio.runs import evaluations, leaderboard

FIGURES = {  # name, digits, factor
    "exact_match": ("exact match, %", 1, 100),
    "label_accuracy": ("label accuracy, %", 1, 100),
    "macro_f1": ("macro F1, %", 1, 100),
    "json_valid": ("valid JSON, %", 1, 100),
    "json_schema": ("fulfils the schema, %", 1, 100),
    "json_equal": ("the same JSON, %", 1, 100),
    "regex": ("matches the pattern, %", 1, 100),
    "rouge_l": ("ROUGE-L, %", 1, 100),
    "chrf": ("chrF", 1, 1),
    "bleu": ("BLEU", 1, 1),
    "ended": ("ended by itself, %", 1, 100),
    "length": ("tokens an answer", 1, 1),
    "loss": ("held-out loss", 4, 1),
    "perplexity": ("perplexity", 2, 1),
    "token_accuracy": ("token accuracy, %", 1, 100),
}
HEAD = ("figure", "base", "tuned", "difference")
LEADERS_HEAD = ("run", "method", "gain", "forgetting (KL)", "memory", "minutes", "size", "beaten by none")


def figures(run: Run) -> tuple[str, list[list[str]]]:
    """(verdict, rows of HEAD) of what was measured of base and tuned, with 95 % intervals; ("", []) without any."""
    metrics = evaluations.metrics(run)
    base, tuned = metrics.get("base") or {}, metrics.get("tuned") or {}
    rows = []
    for key, (name, digits, factor) in FIGURES.items():
        if tuned.get(key) is None:
            continue
        change = (metrics.get("difference") or {}).get(key) or {}
        bounds = [change.get("low"), change.get("high")]
        rise = None if base.get(key) is None else tuned[key] - base[key]
        cells = [
            figure(base.get(key), digits, factor, (base.get("intervals") or {}).get(key)),
            figure(tuned[key], digits, factor, (tuned.get("intervals") or {}).get(key)),
            figure(change.get("value", rise), digits, factor, bounds, signed=True),
        ]
        rows.append([name, *cells])
    return (metrics.get("verdict") or {}).get("text", ""), rows


def figure(
    value: float | None, digits: int, factor: float, bounds: Sequence[float | None] | None = None, signed: bool = False
) -> str:
    """A number with its interval: 61.0 [55.0, 67.0]."""
    if value is None:
        return "–"
    text = f"{factor * value:{'+' if signed else ''}.{digits}f}"
    if not bounds or None in bounds:
        return text
    return f"{text} [{factor * (bounds[0] or 0):.{digits}f}, {factor * (bounds[1] or 0):.{digits}f}]"


def leaders(run: Run) -> list[list[str]]:
    """Rows of LEADERS_HEAD: the finished runs on the same data; [] where this is the only one."""
    return [
        [
            row["name"],
            row["method"],
            figure(row["gain"], 4, 1),
            figure(row["forgetting"], 4, 1),
            f"{row['memory'] / 2**30:.2f} GiB" if row["memory"] else "–",
            f"{row['seconds'] / 60:.1f}",
            f"{row['size'] / 2**20:.1f} MiB",
            "yes" if row["front"] else "",
        ]
        for row in leaderboard.beside(run)
    ]
