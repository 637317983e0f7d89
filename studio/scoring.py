"""Scores of a file's answers by a reward model, in a worker of its own."""

from __future__ import annotations

from typing import Any

from studio import data
from studio.data.examples import rejected_side
from studio.errors import DataError
from studio.job_process import Progress, ask_worker
from studio.run import Run
from studio.runs import claim
from studio.talk.reference import of_run

UNANSWERED = "The row holds no answer to score."


def score(
    run: Run, file: str, format: str = "auto", mapping: Any = None, progress: Progress = lambda *_: None
) -> list[dict[str, Any]]:
    """{row, score} of every row's last answer; of a pair also "rejected", the other answer's score.

    Of a row that cannot be scored: {row, score: None, why}.

    Raises RunError where the run is no reward model, DataError where the file holds no answers.
    """
    of_run(run, scores=True)
    dataset = data.read(file, format, mapping)
    rows = [row for row in dataset.conversations if row["messages"] and row["messages"][-1]["role"] == "assistant"]
    if not rows:
        hint = "Each row needs a question and an answer, or a pair of them."
        raise DataError(f"{file} holds no answers to score.", hint, file)
    conversations = [row["messages"] for row in rows]
    conversations += [rejected_side(row)["messages"] for row in rows if "rejected" in row]
    order = {"run": run.id, "conversations": conversations, "max_length": run.config.data.max_length}
    scores = ask_worker(["studio.worker.score"], order, progress)
    second = iter(scores[len(rows) :])
    scored = [
        {"row": row["row"], "score": value, **({"rejected": next(second)} if "rejected" in row else {})}
        for row, value in zip(rows, scores)
    ]
    reasons = {problem.row: problem.reason for problem in dataset.problems if problem.severity == "refused"}
    missing = set(range(1, dataset.rows + 1)) - {row["row"] for row in scored}
    left_out = [{"row": row, "score": None, "why": reasons.get(row, UNANSWERED)} for row in missing]
    return sorted([*scored, *left_out], key=lambda row: row["row"])


def score_answers(run: Run, question: str, answers: list[str]) -> list[float | None]:
    """The score of each answer. Raises RunError for a run that is no reward model, DeviceError for a busy device."""
    of_run(run, scores=True)
    asked = {"role": "user", "content": question}
    conversations = [[asked, {"role": "assistant", "content": answer}] for answer in answers]
    order = {"run": run.id, "conversations": conversations, "max_length": run.config.data.max_length}
    with claim.held_device("Try again when it has ended."):
        return ask_worker(["studio.worker.score"], order)


def accuracy(rows: list[dict[str, Any]]) -> float | None:
    """Share of pairs whose chosen answer has the higher score, a tie for a half; None without pairs."""
    pairs = [row for row in rows if row.get("rejected") is not None and row["score"] is not None]
    wins = sum((row["score"] > row["rejected"]) + 0.5 * (row["score"] == row["rejected"]) for row in pairs)
    return wins / len(pairs) if pairs else None
