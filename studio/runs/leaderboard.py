"""The leaderboard of the runs on one data set: gain, forgetting, memory, time and size, and who is beaten by nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.errors import RunError, StudioError
from studio.home import folder_size
from studio.run import Run, runs, summary
from studio.runs import evaluations

MORE = ("gain", "score")  # more is better; of the others less is
LESS = ("forgetting", "memory", "seconds", "size")


def leaderboard(source: str, known: Sequence[Run] | None = None) -> list[dict[str, Any]]:
    """The finished runs on a data set, the largest gain first: {run, name, method, model, gain, loss_before, loss,
    score, metric, forgetting, memory, seconds, size, trainable, front}.

    source: a data file as an order names it, its fingerprint, or a run. gain: fall of the held-out loss. score: of its
    evaluation by answers, where it has one. forgetting: KL to the base. front: whether no other run is at least as good
    in all and better in one.
    A file that was changed since counts as another data set; of a name's the newest is meant. Raises RunError where no
    finished run is of this data.
    """
    finished = [row for run in (runs() if known is None else known) if (row := _row(run))]
    path = Path(source).expanduser()
    key = str(path.absolute()) if path.exists() else source
    newest = next((row["data"] for row in finished if key in (row["run"], row["data"], *row["names"])), None)
    rows = [row for row in finished if row["data"] == newest]
    if not rows:
        names = sorted({row["names"][0] for row in finished})
        hint = f"Data sets with finished runs: {', '.join(names[:8]) or 'none yet'}."
        raise RunError(f"There is no finished run on {source}.", hint, "data")
    mark_front(rows)
    return sorted(rows, key=lambda row: (row["gain"] is None, -(row["gain"] or 0.0)))


def groups(known: Sequence[Run] | None = None) -> list[dict[str, Any]]:
    """[{data, name, runs}] of the data sets with at least two finished runs, the newest first."""
    by_data: dict[str, dict[str, Any]] = {}
    for run in runs() if known is None else known:
        if row := _row(run):
            entry = by_data.setdefault(row["data"], {"data": row["data"], "name": row["names"][0], "runs": 0})
            entry["runs"] += 1
    return [entry for entry in by_data.values() if entry["runs"] > 1]


def beside(run: Run) -> list[dict[str, Any]]:
    """The leaderboard of a run's data; [] where it is the only one."""
    row = _row(run)
    if row is None:
        return []
    rows = leaderboard(row["data"])
    return rows if len(rows) > 1 else []


def mark_front(rows: Sequence[dict[str, Any]]) -> None:
    """Set `front` of each row: whether no other run beats it. None without a gain."""
    measured = [row for row in rows if row["gain"] is not None]
    for row in rows:
        row["front"] = row["gain"] is not None and not any(_beats(other, row) for other in measured)


def _beats(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether a run is at least as good as another in all figures that both have, and better in one."""
    keys = [key for key in (*MORE, *LESS) if first.get(key) is not None and second.get(key) is not None]
    pairs = [(first[key], second[key]) if key in MORE else (-first[key], -second[key]) for key in keys]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _row(run: Run) -> dict[str, Any] | None:
    """One run's figures; None where it has no result of a training."""
    try:
        row = summary(run)
    except (OSError, StudioError):
        return None
    sources = (run.plan().get("data") or {}).get("sources") or []
    if not row["saved"] or row["combined"] or not sources:
        return None
    evaluation = evaluations.results(run)
    verdict = evaluation.get("verdict") or {}
    metric = verdict.get("metric") if verdict.get("metric") != "loss" else None
    before, after = row["eval_loss_before"], row["eval_loss"]
    forgetting = row.get("forgetting") or {}
    return {
        "run": run.id,
        **{key: row[key] for key in ("name", "method", "model", "seconds", "trainable")},
        "data": "+".join(sorted(str(part["fingerprint"]) for part in sources)),
        "names": (row["data"], *(str(part["source"]) for part in sources)),
        "loss_before": before,
        "loss": after,
        "gain": None if before is None or after is None else before - after,
        "metric": metric,
        "score": evaluation["tuned"].get(metric) if metric else None,
        "forgetting": forgetting.get("kl"),
        "kept": forgetting.get("verdict"),
        "memory": row["peak_memory"],
        "size": folder_size(run.result),
    }
