"""The answers that a stage has its model write to prompts: several to each, sampled, many at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from studio.evaluation.questions import Question
from studio.kernels import IGNORE_INDEX
from studio.rewards import labels
from studio.stages.grpo import GRPO, spread
from studio.talk.stopping import end_token_ids
from studio.template import THINKING
from studio.tokens import Encoder
from studio.worker.generate import Answer, Batch
from studio.worker.packing import Row
from studio.worker.sampling import IncrementalText, Sampling


@dataclass
class Rollout:
    """One answer that the model wrote. ids: its tokens, with the one that ended it; ended: whether one did.

    rewards: by each reward of the order, None where it has none to give; reward: their weighted sum; before: its
    tokens' log-probabilities when it was written, where a step asks for them.
    """

    prompt_ids: list[int]
    asked: Question
    ids: list[int]
    text: str
    ended: bool
    rewards: list[float | None]
    reward: float = float("nan")
    advantage: float = 0.0
    before: list[float] | None = None

    @property
    def known(self) -> bool:
        return self.reward == self.reward


class Ends(NamedTuple):
    """What ends an answer: tokens, and texts of several tokens. context: tokens that the model reads."""

    encoder: Encoder
    tokens: frozenset[int]
    texts: tuple[str, ...]
    context: int

    @classmethod
    def of(cls, encoder: Encoder, context: int) -> Ends:
        template, tokenizer = encoder.template, encoder.tokenizer
        tokens = end_token_ids(tokenizer, template.stop_strings, template, encoder.folder)
        texts = tuple(stop for stop in template.stop_strings if tokenizer.token_to_id(stop) is None)
        return cls(encoder, frozenset(tokens), texts, context)

    def answer(self, prompt_ids: list[int], sampling: Sampling) -> Answer:
        """An answer to be written that knows when it has ended."""
        return Answer(prompt_ids, sampling, IncrementalText(self._decode, self.texts), self.tokens, self.context)

    def text(self, ids: list[int]) -> str:
        """An answer's tokens as text, without what ended it."""
        text = self._decode([*ids[:-1], *(() if ids[-1] in self.tokens else ids[-1:])])
        for stop in self.texts:
            text = text.partition(stop)[0]
        return text.rstrip("\ufffd")

    def _decode(self, ids: list[int]) -> str:
        return self.encoder.tokenizer.decode(ids, skip_special_tokens=not self.texts)


class Writer:
    """Writes answers with a model. at_once: answers that are written at the same time; more wait for their turn."""

    def __init__(self, stage: GRPO, encoder: Encoder, ends: Ends, at_once: int, seed: int):
        self.stage, self.encoder, self.ends = stage, encoder, ends
        self.at_once, self.seed = at_once, seed

    def write(self, model: Any, prompts: Sequence[Row], group: int, turn: str, first: int = 0) -> list[Rollout]:
        """Write `group` answers to each prompt; returns them prompt by prompt. The model is in eval mode.

        turn: what the random numbers depend on beside the order's seed, such as the step: the same turn draws the same.
        first: the place of the first of these prompts among those of the turn.
        """
        groups = [
            [self._answer(prompt, f"{turn}/{index}/{number}") for number in range(group)]
            for index, prompt in enumerate(prompts, first)
        ]
        batch, waiting = Batch(model), list(groups)
        while waiting or batch.answers:
            while waiting and (not batch.answers or len(batch.answers) + group <= self.at_once):
                batch.prefill_group(waiting.pop(0))
            batch.step()
        return [
            self._rollout(prompt, answer) for prompt, answers in zip(prompts, groups, strict=True) for answer in answers
        ]

    def _answer(self, prompt: Row, name: str) -> Answer:
        stage = self.stage
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "little") >> 1
        sampling = Sampling(stage.max_new_tokens, stage.temperature, stage.top_p, seed=seed)
        return self.ends.answer(prompt["input_ids"], sampling)

    def _rollout(self, prompt: Row, answer: Answer) -> Rollout:
        if answer.error is not None:
            raise answer.error
        ids, text = answer.output_ids, self.ends.text(answer.output_ids)
        if (
            self.encoder.tokenizer.decode(prompt["input_ids"][-8:], skip_special_tokens=False)
            .rstrip()
            .endswith(THINKING)
        ):
            text = f"{THINKING}\n{text}"  # opened by the template
        question = Question(**json.loads(prompt["question"]))
        return Rollout(prompt["input_ids"], question, ids, text, answer.finish_reason == "stop", [])


def as_row(rollout: Rollout) -> Row:
    """The prompt with its answer as a row to train on; every token of the answer is a target."""
    prompt = rollout.prompt_ids
    return {"input_ids": [*prompt, *rollout.ids], "labels": [IGNORE_INDEX] * len(prompt) + rollout.ids, "good": True}


def tensor_of(rollouts: Sequence[Rollout], group: int) -> torch.Tensor:
    """Their rewards, [prompts, group]."""
    return torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float32).view(-1, group)


class RolloutMetrics:
    """Means of rewards, lengths and changes of the model over the answers since the last `take`, as floats."""

    def __init__(self, stage: GRPO):
        self.stage, self.names = stage, labels(stage.rewards)
        self._clear()

    def _clear(self) -> None:
        self.rollouts: list[Rollout] = []
        self.spreads: list[torch.Tensor] = []
        self.divergence: list[torch.Tensor] = []
        self.clipped: list[torch.Tensor] = []

    def add_rollouts(self, rollouts: Sequence[Rollout], group: int) -> None:
        """Answers with their rewards; those of a prompt stand together."""
        self.rollouts += rollouts
        if group > 1:
            self.spreads.append(spread(tensor_of(rollouts, group), 1).flatten())

    def add_tokens(self, divergence: torch.Tensor | None, clipped: torch.Tensor) -> None:
        if divergence is not None:
            self.divergence.append(divergence)
        if self.stage.iterations > 1:
            self.clipped.append(clipped.detach().float())

    def take(self) -> dict[str, float]:
        """The metrics of stage.METRICS, and where there are several rewards the mean and the spread of each, as
        reward/NAME and reward_std/NAME; and a new beginning.
        """
        rollouts, figures = self.rollouts, {}
        known = [rollout.reward for rollout in rollouts if rollout.known]
        if rollouts:
            figures["ended"] = sum(rollout.ended for rollout in rollouts) / len(rollouts)
            figures["length"] = sum(len(rollout.ids) for rollout in rollouts) / len(rollouts)
        if known:
            figures["reward"] = sum(known) / len(known)
        if self.spreads:
            spreads = torch.cat(self.spreads)
            figures |= {"reward_std": spreads.mean().item(), "flat": (spreads < 1e-8).float().mean().item()}
        for name, parts in (("kl", self.divergence), ("clipped", self.clipped)):
            if parts:
                figures[name] = torch.cat(parts).mean().item()
        figures = {name: figures[name] for name in self.stage.metrics if name in figures}
        figures |= self._by_reward(rollouts) if len(self.names) > 1 else {}
        self._clear()
        return figures

    def _by_reward(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        figures = {}
        for number, name in enumerate(self.names):
            values = [value for rollout in rollouts if (value := rollout.rewards[number]) is not None]
            if values:
                column = torch.tensor(values, dtype=torch.float32)
                figures[f"reward/{name}"] = column.mean().item()
                figures[f"reward_std/{name}"] = column.std(correction=0).item()
        return figures
