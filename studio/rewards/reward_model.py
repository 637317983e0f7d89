"""A finished run of stage reward scores the answer."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from studio.reward import Reward


class RewardModel(Reward):
    """Its scores have no scale of their own; only their order within a group counts."""

    name: Literal["model"] = Field("model", frozen=True, title="Reward", description="A reward model.")
    list_position: ClassVar[int] = 6
    label: ClassVar[str] = "A reward model"
    about: ClassVar[str] = (
        "The score that a finished run of stage reward gives the answer; its model is held in memory too."
    )

    run: str = Field(min_length=1, max_length=200, title="Run", description="A run of stage reward: its id, or a part.")

    @property
    def run_id(self) -> str:
        return self.run
