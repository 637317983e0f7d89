"""The metrics of answers that a stage has its model write: rewards, lengths, and how the model moves."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from studio.rewards import labels
from studio.stages.grpo import GRPO, spread
from studio.worker.rollouts import Rollout, tensor_of


class RolloutMetrics:
    """Means since the last `take`, as floats."""

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
        for place, name in enumerate(self.names):
            values = [value for rollout in rollouts if (value := rollout.rewards[place]) is not None]
            if values:
                column = torch.tensor(values, dtype=torch.float32)
                figures[f"reward/{name}"] = column.mean().item()
                figures[f"reward_std/{name}"] = column.std(correction=0).item()
        return figures
