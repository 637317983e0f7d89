"""The record of a preparation: which rows were dropped, cut or left out, and why."""

from __future__ import annotations

from typing import Any

from studio.data.problem import KINDS


class RowsByKind:
    """Row numbers by kind and source."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[int]]] = {}

    def add(self, kind: str, source: str, rows: Any) -> None:
        if len(rows):
            self.rows.setdefault(kind, {}).setdefault(source, []).extend(map(int, rows))

    def as_dict(self) -> dict[str, dict[str, Any]]:
        return {
            kind: {
                "count": sum(map(len, by.values())),
                "rows": "; ".join(f"{s}: {ranges(r)}" if len(by) > 1 else ranges(r) for s, r in by.items()),
            }
            for kind, by in self.rows.items()
        }


def ranges(rows: list[int]) -> str:
    """Row numbers in short: "3, 7-12"."""
    runs: list[list[int]] = []
    for row in sorted(set(rows)):
        if runs and row == runs[-1][1] + 1:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


class PreparationRecord:
    """What is dropped and cut, and the tokens lost. seed: of the split. decisions: drop, keep or stop by problem."""

    def __init__(self, seed: int, decisions: dict[str, str] | None = None) -> None:
        self.seed = seed
        self.decisions = decisions or {}
        self.dropped = RowsByKind()
        self.cut = RowsByKind()
        self.split = RowsByKind()
        self.eval_dropped = RowsByKind()
        self.left_out = RowsByKind()  # what the template cannot write
        self.reasons: dict[str, str] = {}  # why rows were dropped, by kind
        self.tokens_lost = 0
        self.eval_tokens_lost = 0
        self.available = 0  # rows that could have been held out


def describe_dropped(record: PreparationRecord) -> str:
    """What was dropped, in words, for a set of which nothing is left."""
    counts = ", ".join(f"{kind}: {rows['count']}" for kind, rows in record.dropped.as_dict().items())
    reason = record.reasons.get("unrenderable")
    hint = reason or "Raise max_length, or look at the problems of the data."
    return f"Dropped were {counts}. {hint}" if counts else "The data is empty."


def changes(record: dict[str, Any]) -> list[str]:
    """Sentences: what of the data is dropped, cut, or trained without a part that the template cannot write.

    record: as Prepared.record holds it.
    """
    sentences = []
    for kind, rows in record.get("dropped", {}).items():
        reason = record.get("reasons", {}).get(kind) or f"{KINDS[kind].reason} {KINDS[kind].hint}"
        sentences.append(f"{rows['count']} rows are left out ({kind}): rows {rows['rows'][:80]}. {reason}")
    for kind, rows in (record.get("cut", {}) | record.get("left_out", {})).items():
        lost = f" {record['tokens_lost']:,} tokens are lost." if kind == "over_limit" else ""
        sentences.append(
            f"{rows['count']} rows lose something ({kind}): rows {rows['rows'][:80]}. "
            f"{KINDS[kind].reason}{lost} {KINDS[kind].hint}"
        )
    return sentences
