"""A reward model: a score for every answer, learnt from pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from studio.errors import OrderError
from studio.knob import OPTIMISATION
from studio.stage import Answers, Stage

if TYPE_CHECKING:
    import torch

    from studio.data.order import DataOrder
    from studio.method import Method
    from studio.training import Training


class Reward(Stage):
    """Bradley and Terry's model of pairs, as in Ouyang et al. 2022, arXiv 2203.02155, eq. 1; half the method's rate."""

    name: Literal["reward"] = Field("reward", frozen=True, title="Stage", description="A reward model.")
    list_position: ClassVar[int] = 4
    label: ClassVar[str] = "Reward model"
    about: ClassVar[str] = "Learns to give better answers a higher score; it judges and writes no text."
    advice: ClassVar[str] = (
        "Take it to score answers, to filter data or to choose among several. A row is two sequences; the head is one "
        "number at the last token, saved beside what the method trains."
    )
    examples: ClassVar[str] = "pairs"
    sequences: ClassVar[int] = 2
    scores: ClassVar[bool] = True
    rate_scale: ClassVar[float] = 0.5
    metrics: ClassVar[tuple[str, ...]] = (
        *("accuracy", "margin", "chosen", "rejected"),
        *("length_chosen", "length_rejected"),
    )

    center: float = Field(0.0, ge=0, le=10, title="Centring", json_schema_extra=OPTIMISATION)
    """Holds the scores of each pair around zero: this × the squared sum of both; 0.01 is usual, 0 off."""

    def refuse(self, method: Method, data: DataOrder, training: Training) -> None:
        super().refuse(method, data, training)
        for key in ("keep_general", "sample_prompts", "forgetting"):
            if getattr(training, key) not in (0, (), "auto"):
                message = f"training.{key} asks the model for text, and a reward model writes none."
                hint = f"Leave training.{key} out."
                raise OrderError(message, hint, f"training.{key}")

    def losses(self, answers: Answers) -> tuple[torch.Tensor, torch.Tensor]:
        """-log sigmoid of the difference, as trl's RewardTrainer; centring: arXiv 2312.09244, eq. 2."""
        from torch.nn.functional import logsigmoid

        chosen, rejected = answers.log_probs[0::2], answers.log_probs[1::2]
        losses = -logsigmoid(chosen - rejected) + self.center * (chosen + rejected) ** 2
        return losses, answers.log_probs.detach()
