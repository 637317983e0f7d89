"""DPO: direct preference optimization, and losses of its kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from studio.knob import OPTIMISATION
from studio.stage import PAIRED, Answers, Stage

if TYPE_CHECKING:
    import torch

BETA, SIMPO_BETA = 0.1, 2.0  # of the papers
SMOOTHED = ("sigmoid", "robust", "simpo")  # losses with a label smoothing


class DPO(Stage):
    """Rafailov et al. 2023, arXiv 2305.18290; a tenth of the method's rate, as is usual for it."""

    name: Literal["dpo"] = Field("dpo", frozen=True, title="Stage", description="Direct preference optimization.")
    list_position: ClassVar[int] = 1
    label: ClassVar[str] = "DPO"
    about: ClassVar[str] = "Learns from pairs which of two answers to prefer, without straying far from the model."
    advice: ClassVar[str] = (
        "Take it after SFT, with pairs of a better and a worse answer to the same question. A row is two sequences, "
        "and the model before training is asked about both: about three times the work of SFT on one of them."
    )
    examples: ClassVar[str] = "pairs"
    sequences: ClassVar[int] = 2
    rate_scale: ClassVar[float] = 0.1
    metrics: ClassVar[tuple[str, ...]] = PAIRED

    beta: float | None = Field(None, gt=0, le=100, title="Beta")
    """How dear it is to stray from the model before training: more stays closer, less learns more from the pairs. Left
    out: 0.1, for simpo 2."""
    loss: Literal["sigmoid", "ipo", "hinge", "robust", "apo_zero", "apo_down", "sigmoid_norm", "simpo"] = Field(
        "sigmoid", title="Loss of a pair"
    )
    """sigmoid: DPO itself. ipo does not run away where pairs are all clear. hinge stops at a margin. robust takes some
    labels for wrong. apo_zero raises chosen answers, apo_down lowers both. sigmoid_norm and simpo count per token, so
    that length wins nothing; simpo needs no reference."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, title="Wrong labels", json_schema_extra=OPTIMISATION)
    """Share of pairs taken to be the wrong way round: for sigmoid, robust and simpo."""
    reference_free: bool = Field(False, title="Without a reference", json_schema_extra=OPTIMISATION)
    """Compares the answers alone, not with the model before training: a third faster, and nothing holds the model
    back."""
    gamma: float = Field(0.5, ge=0, le=100, title="Margin", json_schema_extra=OPTIMISATION)
    """Of simpo: by how much the chosen answer's reward must be the higher one."""

    @model_validator(mode="after")
    def _check_knobs(self) -> DPO:
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(f"label_smoothing goes with {', '.join(SMOOTHED)} only")
        if self.loss == "robust" and not self.label_smoothing:
            raise ValueError("loss robust needs label_smoothing, the share of wrong labels, such as 0.1")
        if "gamma" in self.model_fields_set and self.loss != "simpo" and self.gamma != 0.5:
            raise ValueError("gamma is the margin of loss simpo")
        return self

    @property
    def strength(self) -> float:
        """beta, or its default."""
        default = SIMPO_BETA if self.loss == "simpo" else BETA
        return default if self.beta is None else self.beta

    @property
    def uses_reference(self) -> bool:
        return not self.reference_free and self.loss != "simpo"

    def losses(self, answers: Answers) -> tuple[torch.Tensor, torch.Tensor]:
        """As trl's DPOTrainer and, for simpo, its CPOTrainer: arXiv 2305.18290 eq. 7 (sigmoid), 2310.12036 eq. 17
        (ipo, per token as trl), 2305.10425 (hinge), 2403.00409 (robust), 2408.06266 eq. 7, 8 (apo), 2405.14734 (simpo).
        """
        from torch.nn.functional import logsigmoid

        ratios = answers.log_probs if answers.reference is None else answers.log_probs - answers.reference
        beta, smoothing = self.strength, self.label_smoothing
        rewards = beta * ratios
        means = ratios / answers.lengths.clamp(min=1)
        chosen, rejected = rewards[0::2], rewards[1::2]
        mean_margin = means[0::2] - means[1::2]
        if self.loss == "simpo":
            rewards, margin = beta * means, beta * mean_margin - self.gamma
        else:
            margin = chosen - rejected
        if self.loss in ("sigmoid", "simpo"):
            losses = -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)
        elif self.loss == "robust":
            losses = (smoothing * logsigmoid(-margin) - (1 - smoothing) * logsigmoid(margin)) / (1 - 2 * smoothing)
        elif self.loss == "hinge":
            losses = (1 - margin).relu()
        elif self.loss == "ipo":
            losses = (mean_margin - 1 / (2 * beta)) ** 2
        elif self.loss == "sigmoid_norm":
            losses = -logsigmoid(beta * mean_margin)
        elif self.loss == "apo_zero":
            losses = 1 - chosen.sigmoid() + rejected.sigmoid()
        else:
            losses = chosen.sigmoid() + 1 - margin.sigmoid()
        return losses, rewards.detach()
