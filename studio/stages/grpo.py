"""GRPO: the model writes several answers to each prompt, and learns from the better ones by their rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from studio.errors import OrderError
from studio.knob import OPTIMISATION
from studio.rewards import REWARDS, AnyReward
from studio.stage import Stage

if TYPE_CHECKING:
    import torch

    from studio.data.order import DataOrder
    from studio.method import Method
    from studio.training import Training

LEAST_SPREAD = 1e-4  # added to the spread of a group that its advantages are divided by, as in trl


class GRPO(Stage):
    """Shao et al. 2024, arXiv 2402.03300; losses of 2503.20783 (dr_grpo), 2503.14476 (dapo); a tenth of the rate."""

    name: Literal["grpo"] = Field("grpo", frozen=True, title="Stage", description="Group relative policy optimization.")
    list_position: ClassVar[int] = 5
    label: ClassVar[str] = "GRPO"
    about: ClassVar[str] = "Writes several answers to each prompt and learns from those with the higher rewards."
    advice: ClassVar[str] = (
        "Take it where an answer can be checked: a number, a form, a score. The data need only be prompts. Most of the "
        "time goes into writing; batch_size counts prompts, each with its group of answers."
    )
    examples: ClassVar[str] = "prompts"
    generates: ClassVar[bool] = True
    rate_scale: ClassVar[float] = 0.1
    metrics: ClassVar[tuple[str, ...]] = ("reward", "reward_std", "flat", "ended", "length", "kl", "clipped")

    rewards: tuple[AnyReward, ...] = Field((), max_length=12, title="Rewards")
    """What an answer is worth: the sum of these, each times its weight."""
    group: int = Field(8, ge=2, le=256, title="Answers to a prompt")
    """They are compared with each other; memory and time grow with them."""
    max_new_tokens: int = Field(128, ge=1, le=32_768, title="Longest answer")
    """In tokens, beside the prompt. Time grows with it."""
    temperature: float = Field(1.0, ge=0.05, le=5, title="Temperature")
    """How much the answers of a group vary; where all are alike, nothing is learnt."""
    top_p: float = Field(1.0, gt=0, le=1, title="Top-p", json_schema_extra=OPTIMISATION)
    """Only the likeliest tokens that together reach this share are sampled."""
    beta: float = Field(0.04, ge=0, le=100, title="Beta")
    """How dear it is to stray from the model before training; at 0 nothing holds it back, and that model is not
    asked."""
    loss: Literal["grpo", "dr_grpo", "bnpo", "dapo"] = Field("grpo", title="Loss", json_schema_extra=OPTIMISATION)
    """grpo: a mean over each answer's tokens, then over answers. dapo, and bnpo, which is the same over a whole step: a
    mean over all tokens, so that long answers count for more. dr_grpo: over the longest length, so that length wins
    nothing."""
    scale: Literal["group", "batch", "none"] = Field(
        "group", title="Spread that rewards are divided by", json_schema_extra=OPTIMISATION
    )
    """That of the answer's group, of all answers of the step, or none."""
    epsilon: float = Field(0.2, gt=0, le=10, title="Clipping", json_schema_extra=OPTIMISATION)
    """By which share a token's probability may change before it counts no more. It acts from the second time on that a
    group is learnt from."""
    epsilon_high: float | None = Field(None, gt=0, le=10, title="Clipping, upwards", json_schema_extra=OPTIMISATION)
    """Left out: as Clipping."""
    iterations: int = Field(1, ge=1, le=16, title="Steps from the same answers", json_schema_extra=OPTIMISATION)
    """Optimizer steps before new answers are written: quicker, and less faithful."""

    @property
    def uses_reference(self) -> bool:
        return self.beta > 0

    @property
    def answers_per_row(self) -> int:
        return self.group

    @property
    def answer_tokens(self) -> int:
        return self.max_new_tokens

    def extra_forwards(self, asks_reference: bool) -> int:
        return int(self.uses_reference)

    @property
    def steps_per_batch(self) -> int:
        return self.iterations

    def refuse(self, method: Method, data: DataOrder, training: Training) -> None:
        super().refuse(method, data, training)
        if not self.rewards:
            hint = f"Add one: stage.rewards: [{{name: regex, pattern: '^Answer:'}}]. Rewards: {', '.join(REWARDS)}."
            raise OrderError("GRPO learns from rewards, and the order names none.", hint, "stage.rewards")
        if not any(reward.weight for reward in self.rewards):
            message = "All rewards have the weight 0, so every answer is worth the same and nothing is learnt."
            hint = "Give one of them another weight, such as 1."
            raise OrderError(message, hint, "stage.rewards")
        if training.devices not in ("auto", 1):
            raise OrderError(f"{self.label} trains on one device.", "Set training.devices to auto.", "training.devices")
        if training.compile:
            message = "training.compile compiles for equal shapes, and answers grow by a token at a time."
            hint = "Leave it out."
            raise OrderError(message, hint, "training.compile")

    def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """How much better each answer is than its group's mean: [prompts, group], as the rewards; nan where unknown.

        arXiv 2402.03300, section 4.1.2; `scale` as in trl.
        """
        import torch

        centred = rewards - rewards.nanmean(1, keepdim=True)
        if self.scale == "group":
            centred = centred / (spread(rewards, 1) + LEAST_SPREAD)
        elif self.scale == "batch":
            centred = centred / (spread(rewards.reshape(1, -1), 1) + LEAST_SPREAD)
        return torch.nan_to_num(centred, nan=0.0)

    def token_losses(
        self, log_probs: torch.Tensor, before: torch.Tensor, reference: torch.Tensor | None, advantages: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """(loss, divergence from the reference, whether it is clipped) of every token.

        before: log-probabilities when the answers were written; advantages: of each token's answer. arXiv 2402.03300
        eq. 3 and 4; clipping upwards: 2503.14476; the divergence times the ratio, so that its
        gradient is unbiased: 2512.02556. As trl.
        """
        ratio = (log_probs - before).exp()
        low, high = 1 - self.epsilon, 1 + (self.epsilon if self.epsilon_high is None else self.epsilon_high)
        losses = -(ratio * advantages).minimum(ratio.clamp(low, high) * advantages)
        clipped = ((ratio < low) & (advantages < 0)) | ((ratio > high) & (advantages > 0))
        if reference is None:
            return losses, None, clipped
        difference = reference - log_probs
        divergence = ratio * (difference.exp() - difference - 1)
        return losses + self.beta * divergence, divergence.detach(), clipped

    def token_weights(self, lengths: torch.Tensor) -> torch.Tensor:
        """[tokens]: what the loss of each token of n answers counts, in a sum that is divided by `items`."""
        import torch

        if self.loss == "grpo":
            weights = 1 / lengths.clamp(min=1)
        else:
            weights = torch.full_like(
                lengths, 1 / self.max_new_tokens if self.loss == "dr_grpo" else 1, dtype=torch.float
            )
        return weights.repeat_interleave(lengths)

    def items(self, answers: int, tokens: int) -> int:
        """What the sum of a step's weighted losses is divided by: answers, or tokens."""
        return tokens if self.loss in ("dapo", "bnpo") else answers


def spread(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Standard deviation along a dimension, which is kept, of what is not nan (n - 1 below, as torch.std); 0 of one."""
    known = (~values.isnan()).sum(dim, keepdim=True)
    squares = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True)
    return (squares / (known - 1).clamp(min=1)).sqrt()
