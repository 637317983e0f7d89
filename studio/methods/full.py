"""Full fine-tuning: every weight of the model is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from studio.method import Method, Shapes
from studio.model import ModelFacts


class Full(Method):
    """All weights move: θ* = argmin L(θ; D). Default rate 2e-5, the usual one for supervised fine-tuning (Alpaca, Tülu)."""

    name: Literal["full"] = Field("full", frozen=True)
    place: ClassVar[int] = 1
    label: ClassVar[str] = "Full fine-tuning"
    about: ClassVar[str] = "Trains every weight of the model."
    advice: ClassVar[str] = ("Take it for a small model, or when the result must differ deeply from the base and the data is plenty. "
                             "It costs about 16 bytes of memory per weight and can make the model forget what it knew.")
    learning_rate: ClassVar[float] = 2e-5
    mergeable: ClassVar[bool] = False
    cannot_merge: ClassVar[str] = "The result already is a whole model: there is nothing to merge."
    adapter: ClassVar[bool] = False

    def trained(self, facts: ModelFacts) -> Shapes:
        return {name: tensor.shape for name, tensor in facts.tensors.items()}

    def wrap(self, model: Any) -> Any:
        model.requires_grad_(True)
        return model

    def attach(self, model: Any, folder: Path, name: str = "default") -> Any:
        """The weights in folder are the model: load them instead of the base."""
        return self.load(folder, model.dtype).to(model.device)
