"""The rewards of an order, ready to be given: rules and programs as they are, reward models and judges from here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studio.reward import Reward, Scorer
from studio.rewards.judge import Judge
from studio.worker.judged import JudgeScorer
from studio.worker.score import RewardScorer


def opened(rewards: Sequence[Reward], cache: Path) -> list[Scorer]:
    """A scorer of each. cache: a folder for replies that need not be asked for again. Raises StudioError."""
    return [_opened(reward, cache) for reward in rewards]


def _opened(reward: Reward, cache: Path) -> Scorer:
    if reward.run_id:
        return RewardScorer(reward.run_id)
    return JudgeScorer(reward, cache) if isinstance(reward, Judge) else reward.open()
