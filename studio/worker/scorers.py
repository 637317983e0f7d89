"""The rewards of an order, ready to be given: rules and programs as they are, reward models and judges from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from studio.errors import RunError
from studio.evaluation.endpoint import check_url
from studio.evaluation.questions import Question
from studio.judge import AT_ONCE
from studio.judge.endpoint import Endpoint
from studio.reward import Reward, Scorer
from studio.rewards.judge import Judge, mark
from studio.worker.score import RewardScorer

CACHE_FILE = "judge-replies.jsonl"  # one object a line: what was asked, as a digest, and the reply


def opened(rewards: Sequence[Reward], cache: Path, is_stopped: Callable[[], bool] = lambda: False) -> list[Scorer]:
    """A scorer of each. cache: a folder for replies that need not be asked for again. is_stopped: whether to wait for
    no more of them. Raises StudioError.
    """
    return [_opened(reward, cache, is_stopped) for reward in rewards]


def _opened(reward: Reward, cache: Path, is_stopped: Callable[[], bool]) -> Scorer:
    if reward.run_id:
        return RewardScorer(reward.run_id)
    return JudgeScorer(reward, cache, is_stopped) if isinstance(reward, Judge) else reward.open()


class JudgeScorer:
    """A model behind an OpenAI-style endpoint that marks every answer; a reply without a mark gives no reward.

    It is asked no faster than ordered, and no question twice.
    """

    def __init__(self, reward: Judge, cache: Path, is_stopped: Callable[[], bool] = lambda: False):
        """cache: the folder that replies are kept in. is_stopped: whether nobody waits for marks any more. Raises
        OrderError for an address that may not be asked.
        """
        check_url(reward.url)
        self.reward, self.endpoint = reward, Endpoint(reward, cache / CACHE_FILE, is_stopped)

    def __call__(self, texts: Sequence[str], questions: Sequence[Question]) -> list[float | None]:
        """The marks of the answers. Raises ModelError where the endpoint does not answer."""
        asked = list(map(self.reward.filled, texts, questions))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            replies = dict(zip(dict.fromkeys(asked), pool.map(self._reply, dict.fromkeys(asked)), strict=True))
        if None in replies.values():
            return [None] * len(asked)  # some marks alone would favour the answers that have one
        return [mark(replies[prompt] or "") for prompt in asked]

    def _reply(self, prompt: str) -> str | None:
        """None where the run is asked to stop."""
        try:
            return self.endpoint.ask(prompt)
        except RunError:
            return None
