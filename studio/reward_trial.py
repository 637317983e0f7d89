"""A trial of an order's rewards before the start: on the answers in the data, or on some that the base writes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

from studio import data, preflight
from studio.config import RunConfig
from studio.errors import OrderError
from studio.evaluation.questions import Question
from studio.job_process import Progress, ask_worker
from studio.reward import Scorer
from studio.rewards import labels
from studio.runs import claim, launch

ROWS, MOST_ROWS = 8, 64
GROUP, TOKENS = 4, 256  # answers of the base to a prompt, and tokens of each, at most
Answers = Literal["data", "base"]


def trial(
    config: RunConfig, answers: Answers = "data", rows: int = ROWS, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """What the rewards give: {answers, names, means, spread, rows: [{row, prompt, reference, answers: […]}]}.

    An answer is {text, reward, rewards: {name: value}}; means: by name, None where none was given; spread: share of the
    prompts whose answers differ in reward, None of one answer each. Raises StudioError.
    """
    check(config)
    asked = questions(config, min(rows, MOST_ROWS))
    if answers == "data":
        asked = {row: question for row, question in asked.items() if question.reference}
        if not asked:
            hint = "Let the base answer: --answers base."
            raise OrderError("The rows hold no answers to try the rewards on.", hint, "data.train")
    if answers == "data" and is_plain(config):
        scorers = [reward.open() for reward in config.stage.rewards]
        return table(config, answers, asked, [[question.reference] for question in asked.values()], scorers)
    order = {"config": config.with_absolute_paths().to_yaml(), "answers": answers, "questions": list(asked.items())}
    with claim.held_device("Try again when it has ended, or try the rewards on the answers of the data."):
        return ask_worker(["studio.worker.reward_trial"], order, progress, launch.secrets(config))


def check(config: RunConfig) -> None:
    """Raise StudioError for an order without rewards, or with some that cannot be given."""
    if not config.stage.generates:
        hint = "Set stage to grpo and name some."
        raise OrderError(f"{config.stage.label} has no rewards to try.", hint, "stage.rewards")
    config.stage.refuse(config.method, config.data, config.training)
    preflight.check_rewards(config)


def is_plain(config: RunConfig) -> bool:
    """Whether all rewards are rules that need no model, no address and no program."""
    return not any(reward.run_id or reward.address or reward.code for reward in config.stage.rewards)


def questions(config: RunConfig, rows: int) -> dict[int, Question]:
    """Some prompts of the first source, spread over it, by row of the file. Raises OrderError where there are none."""
    dataset = data.read_for(config.data, config.data.sources()[0].source)
    conversations = dataset.decide(config.data.problems).conversations
    count = len(conversations)
    chosen = conversations.take(sorted({index * count // rows for index in range(rows)})) if count else []
    questions = {row["row"]: question for row in chosen if (question := data.asked_of(row)) is not None}
    if not questions:
        raise OrderError(f"{dataset.source} holds no prompts.", "Take data with a question a row.", "data.train")
    return questions


def table(
    config: RunConfig,
    answers: str,
    asked: dict[int, Question],
    texts: Sequence[Sequence[str]],
    scorers: Sequence[Scorer],
) -> dict[str, Any]:
    """As `trial` returns it. asked: by row; texts: of the answers to each question."""
    rewards = config.stage.rewards
    names = labels(rewards)
    flat = [text for group in texts for text in group]
    repeated = [question for question, group in zip(asked.values(), texts, strict=True) for _ in group]
    columns = [scorer(flat, repeated) for scorer in scorers]
    scored = iter(_answer(text, values, rewards, names) for text, *values in zip(flat, *columns, strict=True))
    rows = [
        {"row": row, "prompt": question.text, "reference": question.reference, "answers": [next(scored) for _ in group]}
        for (row, question), group in zip(asked.items(), texts, strict=True)
    ]
    groups = [[answer["reward"] for answer in row["answers"] if answer["reward"] is not None] for row in rows]
    differing = [max(group) - min(group) > 1e-8 for group in groups if len(group) > 1]
    return {
        "answers": answers,
        "names": names,
        "means": dict(zip(names, map(_mean, columns), strict=True)),
        "mean": _mean([reward for group in groups for reward in group]),
        "spread": _mean(differing),
        "rows": rows,
    }


def _answer(text: str, values: Sequence[float | None], rewards: Any, names: Sequence[str]) -> dict[str, Any]:
    known = [reward.weight * value for reward, value in zip(rewards, values, strict=True) if value is not None]
    return {"text": text, "reward": sum(known) if known else None, "rewards": dict(zip(names, values, strict=True))}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return statistics.fmean(known) if known else None
