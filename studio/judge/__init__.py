"""A judge: another model behind an OpenAI-style endpoint compares base and tuned answers to held-out questions.

Each pair is shown twice, the order swapped; only where both verdicts name the same answer does it win, else it is a tie
(Zheng et al. 2023, arXiv 2306.05685). A key comes from STUDIO_JUDGE_KEY alone and is written nowhere.
"""

from __future__ import annotations

import concurrent.futures
import re
import time
from typing import Any

from studio.errors import ModelError, RunError
from studio.evaluation.endpoint import KEY
from studio.evaluation.statistics import wilson
from studio.judge.endpoint import Endpoint
from studio.judge.order import PROMPT, JudgeOrder, order_of
from studio.run import Run
from studio.runs import evaluations
from studio.side_job import Progress, SideJob

__all__ = [
    "AT_ONCE", "KEY", "PROMPT", "JudgeOrder", "describe", "job", "judge", "order_of", "table_of"
]  # fmt: skip

KIND = "judge"
AT_ONCE = 4  # requests
FAILURES = 3  # questions in a row that got no answer: the rest is not asked
SLOTS = re.compile(r"\{(question|reference|answer_a|answer_b)\}")
VERDICTS = {"A": "first", "B": "second", "C": "tie"}


def job(run: Run, progress: Progress = lambda _: None) -> SideJob:
    return SideJob(run, KIND, "The judging", progress)


def table_of(run: Run) -> list[dict[str, Any]]:
    """The held-out answers of both models. Raises RunError where there are none."""
    table = evaluations.results(run).get("table") or []
    if not table:
        hint = "Evaluate it by answers first; the judge reads those."
        raise RunError(f"{run.id} has no answers to judge yet.", hint, "run")
    return table


def judge(
    run: Run, order: JudgeOrder, progress: Progress = lambda _: None, table: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """{win_rate, low, high, wins, ties, losses, flipped, unreadable, rows: [{row, verdict, …}], …}, kept in the run.

    verdict: tuned, base or tie. flipped: pairs where the place decided. Raises StudioError.
    """
    rows = [row for row in (table or table_of(run)) if row["base"].strip() or row["tuned"].strip()][: order.rows]
    if not rows:
        message = "Base and tuned model answered every question with nothing: there is nothing to compare."
        hint = "Look at the answers in the table of the evaluation, or train longer."
        raise RunError(message, hint, "run")
    task, began = job(run, progress), time.time()
    with task.working(device=False):
        endpoint = Endpoint(order, task.folder / "cache.jsonl", task.stop_requested)
        verdicts, why, hint = _judged(rows, order, endpoint, task)
        if not verdicts and why == "stopped":
            raise task.stopped()
        if not verdicts:
            raise ModelError(f"The judge gave no verdict. {why}", hint, "judge.url")
        return task.keep(
            {
                "run": run.id,
                "at": round(began, 3),
                "seconds": round(time.time() - began, 1),
                "state": "done" if len(verdicts) == len(rows) else "stopped",
                "why": why,
                **order.model_dump(),
                **_summary(verdicts),
                "of": len(rows),
                "rows": verdicts,
            }
        )


def _judged(
    rows: list[dict[str, Any]], order: JudgeOrder, endpoint: Endpoint, task: SideJob
) -> tuple[list[dict[str, Any]], str, str]:
    """(verdicts in the order of the rows, why not all of them or "", what to do about it)."""
    verdicts: list[dict[str, Any]] = []
    until, why, failures = time.monotonic() + 60 * order.minutes, "", 0
    hint = "Give it more minutes, or ask about fewer rows."
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(rows), AT_ONCE):
            if task.stop_requested():
                why = "stopped"
            elif time.monotonic() > until:
                why = f"The time of {order.minutes:g} minutes was over."
            if why:
                break
            batch = rows[start : start + AT_ONCE]
            futures = [pool.submit(_verdict, row, order.prompt, endpoint) for row in batch]
            for row, future in zip(batch, futures, strict=True):
                try:
                    verdicts.append({"row": row["row"], "prompt": row["prompt"], **future.result()})
                    failures = 0
                except (ModelError, RunError) as error:
                    failures, hint = failures + 1, error.hint
                    why = error.message if failures >= FAILURES or endpoint.refused else ""
            task.tell("judging", start + len(batch), len(rows))
    if len(verdicts) < len(rows) and task.stop_requested():
        why = "stopped"
    return verdicts, "" if len(verdicts) == len(rows) else why or "Some questions got no answer.", hint


def _verdict(row: dict[str, Any], prompt: str, endpoint: Endpoint) -> dict[str, Any]:
    """{verdict, flipped, unreadable} of one pair, shown in both orders."""
    seen = [
        _read(endpoint.ask(_filled(prompt, row, first, second)))
        for first, second in (("base", "tuned"), ("tuned", "base"))
    ]
    names = [{"first": "base", "second": "tuned"}, {"first": "tuned", "second": "base"}]
    winners = [name.get(verdict or "", "tie") for name, verdict in zip(names, seen, strict=True)]
    agree = winners[0] == winners[1]
    return {
        "verdict": winners[0] if agree else "tie",
        "flipped": not agree and "tie" not in winners,
        "unreadable": None in seen,
    }


def _filled(prompt: str, row: dict[str, Any], first: str, second: str) -> str:
    texts = {
        "question": row["prompt"],
        "reference": row.get("reference") or "",
        "answer_a": row[first],
        "answer_b": row[second],
    }
    return SLOTS.sub(lambda slot: texts[slot[1]], prompt)


def _read(reply: str) -> str | None:
    """first, second or tie, as the reply's last [[A]], [[B]] or [[C]] says, or a reply of that letter alone."""
    text = re.sub(r"<think>.*?</think>", "", reply, flags=re.S).strip()
    marks = re.findall(r"\[\[([ABC])\]\]", text) or re.findall(r"^\W*([ABC])\W*$", text)
    return VERDICTS[marks[-1]] if marks else None


def _summary(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {name: sum(row["verdict"] == name for row in verdicts) for name in ("tuned", "base", "tie")}
    rate = (counts["tuned"] + counts["tie"] / 2) / len(verdicts)
    low, high = wilson(rate * len(verdicts), len(verdicts))
    return {
        "win_rate": rate,
        "low": low,
        "high": high,
        "wins": counts["tuned"],
        "ties": counts["tie"],
        "losses": counts["base"],
        "flipped": sum(row["flipped"] for row in verdicts),
        "unreadable": sum(row["unreadable"] for row in verdicts),
    }


def describe(summary: dict[str, Any]) -> str:
    if summary["unreadable"] == sum(summary[name] for name in ("wins", "ties", "losses")):
        return "No verdict could be read: take a larger model as judge."
    return (
        f"The tuned model wins {summary['win_rate']:.0%} ({summary['low']:.0%} to {summary['high']:.0%}): "
        f"{summary['wins']} better, {summary['ties']} equal, {summary['losses']} worse of {summary['of']}."
    )
