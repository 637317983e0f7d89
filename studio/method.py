"""What a tuning method is: its knobs, its arithmetic, and how a worker loads, wraps, saves and attaches it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from studio import footprint, loading, token_rows
from studio.base import proved
from studio.base.quantization import Quantization, refuse_stored
from studio.errors import ExportError, ModelError, OrderError, RunError
from studio.footprint import Footprint
from studio.knob import KNOBS
from studio.model import ModelFacts

if TYPE_CHECKING:
    from studio.device import Device

Shapes = dict[str, tuple[int, ...]]  # tensor name -> shape
TRAINING_KNOBS = {"dropout", "plus_ratio", "init"}  # of methods: how weights are trained, not what they are
TRAINED_WEIGHTS = "trained.safetensors"  # file of a checkpoint


class Method(BaseModel, ABC):
    """One tuning method with its knobs set: LoRA(rank=16).

    Knobs are pydantic fields, each with title, description and bounds; `json_schema_extra=PRECISION` (knob.py) puts one
    into a group behind the Advanced switch, "choices" names the presets of a knob that takes free text too. The page's
    form and help, the YAML check and the README row come from the field.
    """

    model_config = KNOBS

    name: str
    list_position: ClassVar[int] = 99  # in lists of methods, ascending
    label: ClassVar[str]  # "LoRA"
    about: ClassVar[str]  # one sentence: what it does
    advice: ClassVar[str]  # two sentences: when to take it, what it costs
    learning_rate: ClassVar[float]  # a sound default, with its source in the class's docstring
    allows_checkpointing: ClassVar[bool] = True
    allows_packing: ClassVar[bool] = True  # several rows in one: only where nothing is put before the row
    mergeable: ClassVar[bool] = False
    cannot_merge: ClassVar[str] = ""  # why not, in words, where mergeable is False
    trains_tokens: ClassVar[bool] = False  # whether rows for new tokens are trained and come with the result
    goes_on: ClassVar[bool] = False  # whether another run can train its result further (start)
    adapter: ClassVar[bool] = True  # the result is an adapter beside a base; False: whole weights

    # -- arithmetic, without torch

    @abstractmethod
    def trained(self, facts: ModelFacts) -> Shapes:
        """Name and shape of every tensor that is trained. Raises OrderError when the knobs do not fit the model."""

    def trainable(self, facts: ModelFacts) -> int:
        """How many numbers are trained; exactly what peft counts."""
        return sum(prod(shape) for shape in trained_shapes(facts, self).values())

    def quantized(self) -> Quantization | None:
        """How the base's linears are quantized; None where they are in 16 or 32 bits."""
        return None

    def footprint(self, facts: ModelFacts) -> Footprint:
        """What the method adds to the model, for the memory estimate."""
        quantization = self.quantized()
        return footprint.of(
            trained_shapes(facts, self),
            dropout=getattr(self, "dropout", 0.0),
            quantized=(quantization.kind, quantization.double) if quantization else facts.stored_quantization,
        )

    def optimizer(self, device: Device) -> str | None:
        """The optimizer of training.optimizer = auto where memory is short; None: fused AdamW in any case."""
        return None

    def auto_values(self, facts: ModelFacts, precision: str) -> dict[str, tuple[Any, str]]:
        """What each of its own knobs set to `auto` comes to: {knob: (value, why)}. precision: the run's."""
        return {}

    def cautions(self, training: Any) -> list[str]:
        """Warnings with their advice, one sentence or two each, for an order that is allowed."""
        return []

    def can_checkpoint(self, facts: ModelFacts | None) -> bool:
        """Whether this method allows gradient checkpointing, and transformers does for the model, where it is known."""
        return self.allows_checkpointing and (facts is None or facts.model_type not in proved.NOT_CHECKPOINTED)

    def refuse(self, facts: ModelFacts | None, training: Any, device: Device) -> None:
        """Raise OrderError for combinations that cannot work, before any model is loaded."""
        if getattr(training, "checkpointing", None) is True and not self.can_checkpoint(facts):
            what = f"A {facts.model_type} model" if facts and self.allows_checkpointing else self.label
            hint = "Set training.checkpointing to auto or false."
            raise OrderError(f"{what} does not work with gradient checkpointing.", hint, "training.checkpointing")
        if getattr(training, "packing", None) is True and not self.allows_packing:
            raise OrderError(
                f"{self.label} does not work with packing: its virtual tokens would stand before the first row only.",
                "Set training.packing to auto or false.",
                "training.packing",
            )
        if getattr(training, "precision", None) == "bf16" and not device.bf16:
            hint = "Set training.precision to auto."
            raise OrderError(f"{device.name} cannot compute in bf16.", hint, "training.precision")
        if (quantization := self.quantized()) is not None:
            quantization.refuse(device)
        if facts is not None:
            if facts.quantizer:
                refuse_stored(facts.quantizer)
            self.trained(facts)

    def refuse_tokens(self, facts: ModelFacts) -> None:
        """Raise OrderError where these knobs or this model would leave rows of new tokens untrained."""

    # -- with torch, in a worker only; imports inside

    def load(self, folder: Path, dtype: Any, **options: Any) -> Any:
        """The base model from a folder, quantized where the method says so. dtype: a torch.dtype."""
        quantization = self.quantized()
        if quantization is not None:
            return loading.load_packed(folder, dtype, quantization, **options)
        return loading.load_base(folder, dtype, **options)

    @property
    def shares_base(self) -> bool:
        """Whether the base's own weights stay as they are, so that other adapters can be trained over the same ones."""
        return self.adapter

    @abstractmethod
    def wrap(self, model: Any) -> Any:
        """The model with what is trained set to float32 and requires_grad, and nothing else."""

    def initialize(self, model: Any, batches: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Set initial values that depend on the data (EVA), before step 1 of a run. batches: model inputs."""

    def parameter_groups(self, model: Any, learning_rate: float) -> list[dict[str, Any]] | None:
        """Optimizer parameter groups where the method wants its own (LoRA+), else None."""
        return None

    def save_checkpoint(self, model: Any, folder: Path) -> None:
        """Write the trained weights into a checkpoint's folder: all that a resume needs of the model."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: weight.detach().cpu().contiguous() for name, weight in trained_weights(model).items()}
        save_file(weights, folder / TRAINED_WEIGHTS)

    def load_checkpoint(self, model: Any, folder: Path) -> None:
        """Load what save_checkpoint wrote into a wrapped model. Raises RunError where the weights do not fit."""
        import torch
        from safetensors.torch import load_file

        stored, weights = load_file(folder / TRAINED_WEIGHTS), trained_weights(model)
        check_same_weights(stored, weights, folder)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(stored[name])

    def save_result(self, model: Any, folder: Path) -> None:
        """Write the result (adapter or weights) into folder."""
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)

    def same_weights(self, other: Method) -> bool:
        """Whether a result of the other method fits into what this one trains: equal but for how it is trained."""
        mine, theirs = self.model_dump(exclude=TRAINING_KNOBS), other.model_dump(exclude=TRAINING_KNOBS)
        return mine == theirs

    def load_result(self, model: Any, folder: Path) -> None:
        """Load an adapter of save_result for further training. Raises RunError for missing weights or other shapes."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        stored = load_file(folder / "adapter_model.safetensors")
        try:
            unknown = set_peft_model_state_dict(model, stored).unexpected_keys
        except (RuntimeError, KeyError) as error:
            unknown = [str(error)]
        if unknown:
            message = f"The adapter in {folder} does not fit into what this order trains: {unknown[0][:200]}."
            hint = "Give method the settings of the run that made it."
            raise RunError(message, hint, "method")

    def attach(self, model: Any, folder: Path, name: str = "default") -> Any:
        """The base with a result that save_result wrote attached and activated, in eval mode.

        A base takes several results of one kind, each under its name (without dots): set_adapter(name) switches,
        disable_adapter() gives the base. Raises ModelError where the base already carries another kind.
        """
        from peft import PeftConfig, PeftModel

        if not isinstance(model, PeftModel):
            token_rows.prepare_base(model, folder)
            return token_rows.merge_rows(loading.load_adapter(model, folder, name)).eval()
        if token_rows.saved_indices(folder) or token_rows.table_rows(folder):
            hint = "Load the base a second time for it."
            raise ModelError("An adapter that brings rows for new tokens needs a base of its own.", hint, str(folder))
        peft_type = PeftConfig._get_peft_type(str(folder))
        if model.peft_type != peft_type:
            raise ModelError(
                f"This base already carries {str(getattr(model.peft_type, 'value', model.peft_type)).lower()} "
                f"adapters, which do not mix with {peft_type.lower()}.",
                "Load the base a second time for it.",
                str(folder),
            )
        loading.load_adapter(model, folder, name)
        model.set_adapter(name, inference_mode=True)
        return model

    def merge(self, model: Any) -> Any:
        """The plain model with the attached result merged into its weights. Raises ExportError where that cannot be."""
        if not self.mergeable:
            hint = "Export the adapter instead."
            raise ExportError(f"{self.label} cannot be merged. {self.cannot_merge}", hint, "method.name")
        if getattr(model.get_base_model(), "is_quantized", False):
            hint = "Load the base in 16 bits and attach the result to it."
            raise ExportError("A base held in 4 or 8 bits cannot take a merge without loss.", hint, "model")
        try:
            return model.merge_and_unload(safe_merge=True)
        except (AttributeError, RuntimeError, ValueError) as error:  # kinds of peft that are no method here
            if "memory" in str(error):
                raise
            kind = str(getattr(model.peft_type, "value", model.peft_type))
            hint = "Export the adapter instead."
            raise ExportError(f"peft cannot merge this {kind} adapter: {error}.", hint, "method.name") from error


@lru_cache(maxsize=64)
def trained_shapes(facts: ModelFacts, method: Method) -> Mapping[str, tuple[int, ...]]:
    """Method.trained, computed once for the same facts. Raises OrderError as that does."""
    return method.trained(facts)


def trained_weights(model: Any) -> dict[str, Any]:
    """Name -> parameter of all that is trained."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def check_same_weights(stored: dict[str, Any], weights: dict[str, Any], folder: Path) -> None:
    """Raise RunError where a checkpoint's tensors have other names or shapes than the weights they are loaded into."""
    if {name: weight.shape for name, weight in stored.items()} != {n: weight.shape for n, weight in weights.items()}:
        message = f"The checkpoint {folder.name} holds other trained weights than this order trains."
        hint = "Start the run anew."
        raise RunError(message, hint, str(folder))


def in_float32(model: Any) -> Any:
    """The model with its trained weights in float32: AdamW's small steps are lost in bf16's 8 bits of mantissa.

    Where `defer_float32_cast` is set, the cast is left to worker/sharding.py, which does it layer by layer.
    """
    return model if is_cast_deferred(model) else cast_trained_to_float32(model)


def is_cast_deferred(model: Any) -> bool:
    """Whether the trained weights stay in 16 bits until the model is sharded over its devices."""
    return getattr(model, "defer_float32_cast", False)


def cast_trained_to_float32(module: Any) -> Any:
    """The module with its trained parameters in float32, cast one after the other on their device."""
    import torch

    for weight in module.parameters():
        if weight.requires_grad and weight.dtype != torch.float32:
            weight.data = weight.data.float()
    return module
