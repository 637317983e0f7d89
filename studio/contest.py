"""Contest: the part of an order that trains several settings over one base, instead of one. Arithmetic of its rungs."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field

MOST = 16  # settings in one race
FOLDER = "contestants"  # of a race's folder: each setting's order, events, checkpoints and result


class Plan(BaseModel):
    """What `plan` adds to a race over shares of the rows: a comparison with examples in the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    minutes: float = Field(10, gt=0, le=24 * 60)
    shots: int = Field(4, ge=1, le=64)


class Contest(BaseModel):
    """settings: each contestant's changes of the order, as --set takes them ("method.rank=8").

    halving: the worse half is stopped at every rung (Jamieson and Talwalkar 2016, arXiv 1502.07943); without it all
    train to the end. keep: the winner goes on as an ordinary run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    settings: tuple[tuple[str, ...], ...] = Field(min_length=1, max_length=MOST)
    halving: bool = True
    keep: bool = False
    plan: Plan | None = None

    def rungs(self) -> list[float]:
        """Shares of a full run at which the settings are compared; with halving the last comparison is at half of it,
        and each one before at half of the next.
        """
        if not self.halving:
            return [1.0]
        levels = max(1, math.ceil(math.log2(len(self.settings))))
        return [2.0 ** (level - levels) for level in range(levels)]

    def kept(self, level: int, entrants: int) -> int:
        """How many of `entrants` settings go on after a rung."""
        return max(1, math.ceil(entrants / 2 ** (level + 1))) if self.halving else entrants

    def cost(self, steps: int = 0) -> float:
        """Steps of the race, as a share of those of all settings trained to the end. steps: of each; a rung ends at a
        whole one.
        """
        if not self.halving:
            return 1.0
        count = len(self.settings)
        before = 0.0
        total = 0.0
        racing = len(self.settings)
        for level, rung in enumerate(self.rungs()):
            share = math.ceil(steps * rung) / steps if steps else rung
            total += racing * (share - before)
            before, racing = share, self.kept(level, count)
        return total / count
