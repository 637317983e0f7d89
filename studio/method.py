"""The contract of a tuning method: its knobs, its arithmetic, and how a worker loads, wraps, saves and attaches it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from studio.errors import OrderError

if TYPE_CHECKING:
    from studio.device import Device
    from studio.model import ModelFacts

Shapes = dict[str, tuple[int, ...]]  # tensor name -> shape


class Method(BaseModel, ABC):
    """One tuning method with its knobs set; an instance is an order: LoRA(rank=16).

    Knobs are pydantic fields, each with title, description and bounds; `json_schema_extra={"advanced": True}` puts one
    behind the Advanced switch. Form, help, YAML, bounds check and README row all come from the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    place: ClassVar[int] = 99  # where it stands in a list
    label: ClassVar[str]  # "LoRA"
    about: ClassVar[str]  # one sentence: what it does
    advice: ClassVar[str]  # two sentences: when to take it, what it costs
    learning_rate: ClassVar[float]  # a sound default, with its source in the class's docstring
    allows_checkpointing: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False
    cannot_merge: ClassVar[str] = ""  # why not, in words, where mergeable is False
    adapter: ClassVar[bool] = True  # the result is an adapter beside a base; False: whole weights

    # -- arithmetic, without torch

    @abstractmethod
    def trained(self, facts: ModelFacts) -> Shapes:
        """Name and shape of every tensor that is trained. Raises OrderError when the knobs do not fit the model."""

    def trainable(self, facts: ModelFacts) -> int:
        """How many numbers are trained; exactly what peft counts."""
        return sum(prod(shape) for shape in self.trained(facts).values())

    def refuse(self, facts: ModelFacts | None, training: Any, device: Device) -> None:
        """Raise OrderError for combinations that cannot work, before any model is loaded."""
        if getattr(training, "checkpointing", None) is True and not self.allows_checkpointing:
            raise OrderError(f"{self.label} does not work with gradient checkpointing.",
                             "Set training.checkpointing to auto or false.", "training.checkpointing")
        if facts is not None:
            self.trained(facts)

    # -- with torch, in a worker only; imports inside

    def load(self, folder: Path, dtype: Any, **options: Any) -> Any:
        """The base model from a folder, frozen or not as the method needs it. dtype: a torch.dtype."""
        from transformers import AutoModelForCausalLM
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True,
                                                    trust_remote_code=False, **options)

    @abstractmethod
    def wrap(self, model: Any) -> Any:
        """The model with what is trained set to float32 and requires_grad, and nothing else."""

    def groups(self, model: Any, learning_rate: float) -> list[dict[str, Any]] | None:
        """Optimizer parameter groups where the method wants its own (LoRA+), else None."""
        return None

    def save(self, model: Any, folder: Path) -> None:
        """Write the result (adapter or weights) into folder."""
        model.save_pretrained(folder, safe_serialization=True)

    def attach(self, model: Any, folder: Path, name: str = "default") -> Any:
        """A loaded base with a finished result put on it, ready to answer. Undo of save."""
        from peft import PeftModel
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name)
            return model
        return PeftModel.from_pretrained(model, str(folder), adapter_name=name)
