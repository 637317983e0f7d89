"""The rewards of an order, ready to be given: rules and programs as they are, reward models and judges from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from studio.reward import Reward, Scorer
from studio.rewards.judge import Judge
from studio.worker.judged import JudgeScorer
from studio.worker.score import RewardScorer


def opened(rewards: Sequence[Reward], cache: Path, is_stopped: Callable[[], bool] = lambda: False) -> list[Scorer]:
    """A scorer of each. cache: a folder for replies that need not be asked for again. is_stopped: whether to wait for
    no more of them. Raises StudioError.
    """
    return [_opened(reward, cache, is_stopped) for reward in rewards]


def _opened(reward: Reward, cache: Path, is_stopped: Callable[[], bool]) -> Scorer:
    if reward.run_id:
        return RewardScorer(reward.run_id)
    return JudgeScorer(reward, cache, is_stopped) if isinstance(reward, Judge) else reward.open()
