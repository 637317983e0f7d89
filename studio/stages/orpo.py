"""ORPO: supervised tuning on chosen answers and odds against rejected ones in one stage, without a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from studio.stage import PAIRED, Answers, Stage

if TYPE_CHECKING:
    import torch


class ORPO(Stage):
    """Hong et al. 2024, arXiv 2403.07691; half of the method's rate, as it also teaches the answers themselves."""

    name: Literal["orpo"] = Field("orpo", frozen=True, title="Stage", description="Odds ratio preference optimization.")
    list_position: ClassVar[int] = 3
    label: ClassVar[str] = "ORPO"
    about: ClassVar[str] = "Learns to write chosen answers and not to write rejected ones, in one stage."
    advice: ClassVar[str] = (
        "Take it on a base that was not tuned before: it is SFT and preference in one, and needs no reference. A row "
        "is two sequences."
    )
    examples: ClassVar[str] = "pairs"
    sequences: ClassVar[int] = 2
    rate_scale: ClassVar[float] = 0.5
    metrics: ClassVar[tuple[str, ...]] = PAIRED

    beta: float = Field(0.1, gt=0, le=100, title="Beta")
    """Weight of the preference beside learning the chosen answer (lambda in the paper)."""

    def losses(self, answers: Answers) -> tuple[torch.Tensor, torch.Tensor]:
        """arXiv 2403.07691 eq. 6 and 7, as trl's ORPOTrainer but that the likelihood counts answers, not prompts."""
        from torch.nn.functional import logsigmoid

        means = answers.log_probs / answers.lengths.clamp(min=1)
        chosen, rejected = means[0::2], means[1::2]
        log_odds = chosen - rejected - (_log1mexp(chosen) - _log1mexp(rejected))
        likelihood = -answers.log_probs[0::2] / answers.tokens_per_item
        return likelihood - self.beta * logsigmoid(log_odds), (self.beta * means).detach()


def _log1mexp(value: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(value)) for value < 0, exact near both ends."""
    import torch

    value = value.clamp(max=-1e-7)
    return torch.where(value > -0.693, torch.log(-torch.expm1(value)), torch.log1p(-value.exp()))
