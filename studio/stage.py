"""What a stage is: what is learnt from what. Its knobs, the data it needs, its loss, and what it does not go with."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import BaseModel

from studio.errors import OrderError
from studio.knob import KNOBS

if TYPE_CHECKING:
    import torch

    from studio.data.order import DataOrder
    from studio.method import Method
    from studio.training import Training

EXAMPLES = ("answers", "pairs", "verdicts", "prompts")


class Answers(NamedTuple):
    """The answers of a micro-batch, n sequences. Of pairs the even ones are chosen, the odd ones rejected.

    log_probs: [n], summed over the tokens of each answer, or a reward model's scores; reference: the same by the model
    before training, None where the stage has no reference; lengths: [n], tokens of each answer; good: [n] bool, whether
    it is to be preferred; kl: estimate of the divergence from the reference (KTO); tokens_per_item: chosen tokens a
    pair, of the whole effective batch (ORPO).
    """

    log_probs: torch.Tensor
    reference: torch.Tensor | None
    lengths: torch.Tensor
    good: torch.Tensor
    kl: torch.Tensor | None = None
    tokens_per_item: float = 1.0


class Stage(BaseModel, ABC):
    """One stage with its knobs set: DPO(beta=0.1). Knobs are pydantic fields, as a method's are."""

    model_config = KNOBS

    name: str
    list_position: ClassVar[int] = 99  # in lists of stages, ascending
    label: ClassVar[str]  # "DPO"
    about: ClassVar[str]  # one sentence: what is learnt from what
    advice: ClassVar[str]  # when to take it, what it costs
    examples: ClassVar[str] = "answers"  # of EXAMPLES: the data it learns from
    sequences: ClassVar[int] = 1  # that a row puts through the model
    scores: ClassVar[bool] = False  # whether the result scores answers (worker/reward_head.py) and writes none
    mismatched: ClassVar[bool] = False  # whether each prompt is also given another row's answer (KTO)
    generates: ClassVar[bool] = False  # whether it learns from answers that the model itself writes meanwhile
    rate_scale: ClassVar[float] = 1.0  # learning rate left out: the method's own, times this
    metrics: ClassVar[tuple[str, ...]] = ()  # of METRICS: what its curves show

    @property
    def is_supervised(self) -> bool:
        """Whether it learns answers by cross entropy, the plain way."""
        return self.examples == "answers"

    @property
    def uses_reference(self) -> bool:
        """Whether the loss compares with the model as it was before training."""
        return False

    @property
    def answers_per_row(self) -> int:
        """Answers that the model writes to each row's prompt; 0 where it writes none."""
        return 0

    @property
    def answer_tokens(self) -> int:
        """Most tokens of each of them."""
        return 0

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps that learn from the same rows, one after the other."""
        return 1

    def switches_adapter_off(self, method: Method) -> bool:
        """Whether a new adapter switched off gives the reference."""
        return self.uses_reference and method.adapter and method.shares_base

    def extra_forwards(self, asks_reference: bool) -> int:
        """Forward passes that a step makes beside its own: the reference's, asked in each step, and of mismatches."""
        reference = int(asks_reference)
        return reference + (1 + reference if self.mismatched else 0)

    def losses(self, answers: Answers) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss of each item, reward of each sequence). An item is a pair, or an answer with a verdict."""
        raise NotImplementedError

    def why_not(self, method: Method) -> str:
        """Why a tuning method does not go with this stage; empty where it does."""
        return ""

    def refuse(self, method: Method, data: DataOrder, training: Training) -> None:
        """Raise OrderError for settings that this stage cannot follow."""
        if reason := self.why_not(method):
            raise OrderError(f"{self.label} does not go with {method.label}: {reason}", "Choose lora.", "method.name")
        if self.is_supervised:
            return
        if data.train_on == "all":
            message = f"{self.label} compares answers, so data.train_on: all has no meaning under it."
            hint = "Leave data.train_on out: the last answer of each row counts."
            raise OrderError(message, hint, "data.train_on")
        if data.too_long == "split":
            message = f"{self.label} compares whole answers, and data.too_long: split would cut them into pieces."
            hint = "Set data.too_long to cut or drop."
            raise OrderError(message, hint, "data.too_long")
        if training.label_smoothing:
            message = f"training.label_smoothing smooths the labels of tokens, and {self.label} compares answers."
            hint = "Leave it out; stage.label_smoothing of dpo is for labels of pairs."
            raise OrderError(message, hint, "training.label_smoothing")
        if training.sharding == "fsdp":
            message = f"{self.label} trains a copy of the model on each device, and fsdp would split it over them."
            hint = "Set training.sharding to ddp."
            raise OrderError(message, hint, "training.sharding")


METRICS = {
    "loss": "What training lowers.",
    "accuracy": "Share of pairs whose chosen answer has the higher reward; 0.5 is chance.",
    "margin": "Reward of chosen answers minus that of rejected ones.",
    "chosen": "Reward of chosen answers: how much likelier they became, times beta.",
    "rejected": "Reward of rejected answers.",
    "logps_chosen": "Log-probability of chosen answers, summed over their tokens.",
    "logps_rejected": "Log-probability of rejected answers.",
    "length_chosen": "Tokens of chosen answers.",
    "length_rejected": "Tokens of rejected answers.",
    "kl": "Estimated divergence from the model before training.",
    "reward": "Mean reward of the answers that the model writes.",
    "reward_std": "How far the rewards of a group lie apart; where they do not, nothing is learnt from it.",
    "flat": "Share of groups whose answers all have the same reward.",
    "ended": "Share of answers that end by themselves before the longest length.",
    "length": "Tokens of the answers that the model writes.",
    "clipped": "Share of tokens whose change was cut off.",
}
PAIRED = ("accuracy", "margin", "chosen", "rejected", "logps_chosen", "logps_rejected", "length_chosen",
          "length_rejected")  # fmt: skip
