"""Statistics: lengths of rows in tokens, and the effect of a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from studio.data.dataset import Conversations, Dataset
from studio.data.problem import MAX_DETAILED_PER_KIND, Problem, problem
from studio.errors import TemplateError
from studio.tokens import Encoded, Encoder

MAX_COUNTED = 20_000  # rows; of more, so many spread evenly are counted, and the answer says so
BARS = 24


def statistics(
    dataset: Dataset | Conversations, encoder: Encoder, report: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Lengths of all usable rows in tokens, before any cut, with what the encoder's max_length would do to them.

    {rows, counted, turns, min, median, p95, max, total, trained, trained_share, over_limit, tokens_lost,
    tokens_per_epoch, histogram: [[upto, rows], …], suggested_max_length, unrenderable,
    problems, counts, unseen_tokens}. Where counted < rows, the counted rows are spread evenly, and totals and counts of
    rows are scaled to all of them. problems: those that template and model make, which the file alone does not show;
    counts: rows of each kind of them.
    """
    conversations = dataset.conversations if isinstance(dataset, Dataset) else dataset
    count = len(conversations)
    counted = conversations
    if count > MAX_COUNTED:
        counted = conversations.take([n * count // MAX_COUNTED for n in range(MAX_COUNTED)])
    sizes, trained, seen = [], [], set()
    turns, template_problems = 0, TemplateProblems()
    for start in range(0, len(counted), 250):
        batch = counted.batch(start, 250)
        turns += sum(len(c["messages"]) or 1 for c in batch)
        for conversation, e in zip(batch, encoder.encode_each(batch, whole=True), strict=True):
            template_problems.check(conversation, e, encoder)
            if isinstance(e, Encoded):
                sizes.append(len(e.ids))
                trained.append(e.n_trained)
                seen.update(e.ids)
        if report:
            report(min(start + 250, len(counted)), len(counted))
    lengths, factor = np.array(sizes, np.int64), count / max(1, len(counted))
    counts = {kind: round(many * factor) for kind, many in template_problems.counts.items()}
    result = {
        "rows": count,
        "counted": len(counted),
        "turns": round(turns * factor),
        "unrenderable": counts.get("unrenderable", 0),
    }
    result |= summary(lengths, int(sum(trained)), factor, encoder.context_limit)
    result |= limit_effects(lengths, encoder.max_length, encoder.too_long, factor)
    problems = [p.as_dict() for p in template_problems.problems]
    unseen = encoder.unseen_tokens(seen) if counted is conversations else []  # else another row may hold them
    return result | {"problems": problems, "counts": counts, "unseen_tokens": unseen}


class TemplateProblems:
    """Problems that depend on template and model: rows that cannot be rendered, train nothing, or lose a part."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.counts: Counter[str] = Counter()

    def check(self, conversation: dict[str, Any], e: Encoded | TemplateError, encoder: Encoder) -> None:
        """Note what is wrong with a row, encoded whole or refused."""
        if isinstance(e, TemplateError):
            self._add("unrenderable", conversation, e.message, e.hint)
            return
        # without an answer it is a prompt: in stage grpo the model answers it itself
        answered = conversation.get("text") or any(turn["role"] == "assistant" for turn in conversation["messages"])
        if not e.n_trained and answered:
            self._add("untrained", conversation, "No token of this row is trained on.")
        if reason := encoder.describe_overlong(e):
            self._add("over_context", conversation, reason)
        for kind in e.left_out:
            self._add(kind, conversation)

    def _add(self, kind: str, conversation: dict[str, Any], reason: str = "", hint: str = "") -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_DETAILED_PER_KIND:
            asked = (m["content"] for m in conversation["messages"] if m["role"] == "user")
            value = conversation.get("text") or next(asked, "")
            described = problem(kind, conversation["row"], conversation.get("line"), None, value, reason)
            self.problems.append(replace(described, hint=hint or described.hint))


def summary(lengths: np.ndarray, trained: int, factor: float, context: int | None) -> dict[str, Any]:
    """The figures of a set of lengths. Medians and percentiles are lengths of real rows. context: as for suggested."""
    if not len(lengths):
        return dict.fromkeys(
            ("min", "median", "p95", "max", "total", "trained", "trained_share", "suggested_max_length"), 0
        ) | {"histogram": []}
    median, p95 = (int(np.percentile(lengths, q, method="inverted_cdf")) for q in (50, 95))
    total = int(lengths.sum())
    return {
        "min": int(lengths.min()),
        "median": median,
        "p95": p95,
        "max": int(lengths.max()),
        "total": round(total * factor),
        "trained": round(trained * factor),
        "trained_share": round(trained / max(1, total), 4),
        "histogram": histogram(lengths, factor),
        "suggested_max_length": suggested(lengths, context),
    }


def histogram(lengths: np.ndarray, factor: float = 1.0) -> list[list[int]]:
    """[[upto, rows], …]: rows of at most `upto` tokens and more than the bar before; about BARS bars."""
    longest = int(lengths.max(initial=1))
    rough = max(1, longest / BARS)
    unit = 10 ** int(np.log10(rough))
    step = next((unit * m for m in (1, 2, 5, 10) if unit * m >= rough), unit * 10)
    bars = np.bincount((lengths - 1).clip(0) // step)
    return [[(n + 1) * step, round(int(c) * factor)] for n, c in enumerate(bars)]


def suggested(lengths: np.ndarray, context: int | None = None) -> int:
    """The smallest multiple of 32 that fits the 99th percentile; the maximum where that is at most a quarter more.

    context: tokens of a row that the model can read, which is never exceeded.
    """
    p99, longest = float(np.percentile(lengths, 99)), int(lengths.max())
    limit = longest if longest <= 1.25 * p99 else p99
    length = max(32, int(-(-limit // 32)) * 32)
    return min(length, context or length)


def limit_effects(lengths: np.ndarray, limit: int | None, too_long: str = "cut", factor: float = 1.0) -> dict[str, int]:
    """Rows over a limit, tokens lost by it (cut off or dropped), and tokens left in an epoch."""
    if not limit:
        limit = int(lengths.max(initial=0))
    over = lengths > limit
    kept = {"split": lengths[over], "drop": 0}.get(too_long, limit)
    lost = int((lengths[over] - kept).sum())
    return {
        "over_limit": round(int(over.sum()) * factor),
        "tokens_lost": round(lost * factor),
        "tokens_per_epoch": round((int(lengths.sum()) - lost) * factor),
    }
