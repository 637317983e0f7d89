"""KTO: answers with a verdict each, good or bad, instead of pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from studio.errors import OrderError
from studio.knob import OPTIMISATION
from studio.stage import PAIRED, Answers, Stage

if TYPE_CHECKING:
    import torch

    from studio.data.order import DataOrder
    from studio.method import Method
    from studio.training import Training


class KTO(Stage):
    """Ethayarajh et al. 2024, arXiv 2402.01306; a tenth of the method's rate."""

    name: Literal["kto"] = Field("kto", frozen=True, title="Stage", description="Kahneman-Tversky optimization.")
    list_position: ClassVar[int] = 2
    label: ClassVar[str] = "KTO"
    about: ClassVar[str] = "Learns from single answers marked good or bad; no pairs are needed."
    advice: ClassVar[str] = (
        "Take it for thumbs up and down, also where there are many more of one than of the other. The model before "
        "training is asked about every answer, and both about each prompt with another row's answer."
    )
    examples: ClassVar[str] = "verdicts"
    mismatched: ClassVar[bool] = True
    rate_scale: ClassVar[float] = 0.1
    metrics: ClassVar[tuple[str, ...]] = (*PAIRED, "kl")

    beta: float = Field(0.1, gt=0, le=100, title="Beta")
    """How dear it is to stray from the model before training: more stays closer, less learns more from the verdicts."""
    loss: Literal["kto", "apo_zero_unpaired"] = Field("kto", title="Loss of an answer", json_schema_extra=OPTIMISATION)
    """kto: measured from the divergence of the batch. apo_zero_unpaired: from zero, for good answers that are better
    than the model's own."""
    desirable_weight: float = Field(1.0, ge=0, le=100, title="Weight of good answers")
    """Where bad answers are many more than good ones, raise this until the two kinds balance: weight × rows of each
    kind within a third of each other."""
    undesirable_weight: float = Field(1.0, ge=0, le=100, title="Weight of bad answers")
    """The same for bad answers, where good ones are many."""

    @property
    def uses_reference(self) -> bool:
        return True

    def refuse(self, method: Method, data: DataOrder, training: Training) -> None:
        super().refuse(method, data, training)
        if training.batch_size == 1 and training.accumulation in ("auto", 1):
            message = "KTO measures every answer against others of the same step, and a step of one row has none."
            hint = "Set training.batch_size to 2 or more."
            raise OrderError(message, hint, "training.batch_size")

    def losses(self, answers: Answers) -> tuple[torch.Tensor, torch.Tensor]:
        """arXiv 2402.01306 eq. 7 and 8; 2408.06266, unpaired. As trl's KTOTrainer."""
        import torch

        rewards = self.beta * (answers.log_probs - answers.reference)
        if self.loss == "kto" and answers.kl is not None:
            baseline = self.beta * answers.kl
            values = torch.where(answers.good, rewards - baseline, baseline - rewards)
        else:
            values = torch.where(answers.good, rewards, -rewards)
        weights = torch.where(answers.good, self.desirable_weight, self.undesirable_weight)
        return weights * (1 - values.sigmoid()), rewards.detach()
