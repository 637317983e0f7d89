"""The rewards of a judge: a model behind an OpenAI-style endpoint marks every answer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from studio.evaluation.endpoint import check_url
from studio.evaluation.questions import Question
from studio.judge import AT_ONCE, Endpoint
from studio.rewards.judge import Judge, mark

CACHE_FILE = "judge-replies.jsonl"  # one object a line: what was asked, as a digest, and the reply


class JudgeScorer:
    """Asks no faster than ordered, and no question twice. A reply without a mark gives no reward."""

    def __init__(self, reward: Judge, cache: Path):
        """cache: the folder that replies are kept in. Raises OrderError for an address that may not be asked."""
        check_url(reward.url)
        self.reward, self.endpoint = reward, Endpoint(reward, cache / CACHE_FILE, lambda: False)

    def __call__(self, texts: Sequence[str], questions: Sequence[Question]) -> list[float | None]:
        """Raises ModelError where the endpoint does not answer."""
        asked = list(map(self.reward.filled, texts, questions))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            replies = dict(zip(dict.fromkeys(asked), pool.map(self.endpoint.ask, dict.fromkeys(asked)), strict=True))
        return [mark(replies[prompt]) for prompt in asked]
