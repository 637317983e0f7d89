"""Full fine-tuning: every weight of the model is trained, or chosen parts of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from studio.base import targets
from studio.base.shards import weight_files
from studio.base.tensors import EMBEDDING, TABLES
from studio.errors import OrderError
from studio.knob import PRECISION
from studio.method import Method, Shapes, in_float32, is_cast_deferred, trained_weights
from studio.model import ModelFacts
from studio.model import facts as facts_of

# stored by old checkpoints, no weights
BUFFER = re.compile(r"(^|\.)(rotary_emb\.inv_freq|masked_bias|attn\.bias|attention\.bias)$")


class Full(Method):
    """All weights move: θ* = argmin L(θ; D). Rate 2e-5, the usual one for supervised fine-tuning (Alpaca, Tülu)."""

    name: Literal["full"] = Field("full", frozen=True, title="Method", description="Full fine-tuning.")
    list_position: ClassVar[int] = 1
    label: ClassVar[str] = "Full fine-tuning"
    about: ClassVar[str] = "Trains every weight of the model, or the parts you choose."
    advice: ClassVar[str] = (
        "Take it for a small model, or when the result must differ deeply from the base and the data is plenty. "
        "It costs about 16 bytes of memory per trained weight, a whole model on disk, and the model can forget what "
        "it knew."
    )
    learning_rate: ClassVar[float] = 2e-5
    mergeable: ClassVar[bool] = False
    cannot_merge: ClassVar[str] = "The result already is a whole model: there is nothing to merge."
    trains_tokens: ClassVar[bool] = True
    adapter: ClassVar[bool] = False

    last_layers: int | None = Field(None, ge=1, le=1000, title="Only the last layers")
    """Trains the last N layers, the last norm and a head of its own; all before stays. Left out: all layers. Fewer
    layers: less memory, faster, less forgotten."""
    freeze_embeddings: bool = Field(False, title="Freeze embeddings", json_schema_extra=PRECISION)
    """Leaves the table of word vectors as it is (and the head, where it is the same table): saves memory; words keep
    their meaning."""

    def trained(self, facts: ModelFacts) -> Shapes:
        names = [
            name
            for name, tensor in facts.tensors.items()
            if not (BUFFER.search(name) and len(tensor.shape) != 1) and not name.endswith(("inv_freq", "masked_bias"))
        ]
        if facts.tie_word_embeddings:
            names = [
                name for name in names if not name.startswith(("lm_head.", "embed_out.")) or name.endswith(".bias")
            ]
        return {name: facts.tensors[name].shape for name in self._trained_names(names, facts.num_hidden_layers)}

    def _trained_names(self, names: list[str], layers: int) -> list[str]:
        """The names that are trained. Raises OrderError where the model has fewer layers than ordered."""
        if self.last_layers is not None and self.last_layers > layers:
            message = f"The model has {layers} layers, but the last {self.last_layers} are to be trained."
            hint = f"Give 1 to {layers}."
            raise OrderError(message, hint, "method.last_layers")
        if self.last_layers is None and not self.freeze_embeddings:
            return names
        first = 0 if self.last_layers is None else layers - self.last_layers
        freeze_embeddings = self.freeze_embeddings or first > 0
        return [
            name
            for name in names
            if (targets.layer_of(name) is None or targets.layer_of(name) >= first)
            and not (freeze_embeddings and EMBEDDING.search(name))
        ]

    def refuse(self, facts: ModelFacts | None, training: Any, device: Any) -> None:
        if facts is not None and facts.quantizer:
            raise OrderError(
                f"The weights of this model are quantized ({facts.quantizer}): they are numbers of a table, and cannot "
                "be trained themselves.",
                "Take the model that it was made from, or method lora.",
                "method.name",
            )
        super().refuse(facts, training, device)

    def refuse_tokens(self, facts: ModelFacts) -> None:
        if self.last_layers is not None or self.freeze_embeddings:
            knob = "freeze_embeddings" if self.freeze_embeddings else "last_layers"
            message = f"With method.{knob} the embedding stays as it is, so new tokens would never be learnt."
            hint = f"Leave method.{knob} out, or take LoRA, which trains the rows of new tokens alone."
            raise OrderError(message, hint, f"method.{knob}")

    def cautions(self, training: Any) -> list[str]:
        """Catastrophic forgetting, with what the tutorials advise against it."""
        rate = getattr(training, "learning_rate", None) or self.learning_rate
        cautions = [
            "Full fine-tuning can make the model forget what it knew: mix some general conversations into the data, "
            "and compare it with the base in Chat."
        ]
        if rate > 5e-5:
            cautions.append(
                f"A learning rate of {rate:g} is high for training every weight; 1e-5 to 2e-5 forgets less."
            )
        return cautions

    def wrap(self, model: Any) -> Any:
        model.requires_grad_(False)
        weights = dict(model.named_parameters())
        for name in self._trained_names(list(weights), model.config.get_text_config().num_hidden_layers):
            weights[name].requires_grad_(True)
        return model if is_cast_deferred(model) else _with_stored_values(in_float32(model))

    def save_result(self, model: Any, folder: Path) -> None:
        """Each weight in the type of the base's files, which training's float32 would only double."""
        import torch

        base = _base_facts(model)
        if base and any(weight.dtype == torch.float32 for weight in trained_weights(model).values()):
            model.config.dtype = getattr(torch, base.stored_dtype)
        exact, dtype = base.exact if base else set(), model.config.dtype
        state: dict[str, Any] = {}
        cast: dict[Any, Any] = {}  # a tied head stays the embedding's tensor, which is written once
        for name, weight in model.state_dict().items():
            file_dtype = torch.float32 if name in exact else dtype
            state[name] = (
                cast.setdefault((weight.data_ptr(), weight.shape), weight.to(file_dtype))
                if weight.is_floating_point()
                else weight
            )
        model.save_pretrained(folder, state_dict=state, safe_serialization=True)

    def attach(self, model: Any, folder: Path, name: str = "default") -> Any:
        """The weights in folder are the model: load them instead of the base."""
        return self.load(folder, model.dtype).to(model.device).eval()


def _base_facts(model: Any) -> ModelFacts | None:
    """Facts of the files that a model was loaded from; None where it was not loaded from a folder."""
    folder = Path(model.name_or_path or "-")
    return facts_of(folder) if (folder / "config.json").is_file() else None


def _with_stored_values(model: Any) -> Any:
    """The model with its trained weights as the base's files hold them in float32, where loading rounded them."""
    import torch
    from safetensors import safe_open

    base = _base_facts(model)
    if base is None or model.config.dtype == torch.float32:
        return model
    weights = {name: weight for name, weight in trained_weights(model).items() if weight.dtype == torch.float32}
    for file in weight_files(Path(model.name_or_path)):
        with safe_open(file, "pt") as stored, torch.no_grad():
            for name in stored.keys():  # noqa: SIM118 - not a dict
                weight, tensor = weights.get(name), base.tensors[name]
                is_grown = TABLES.search(name) and getattr(model, "token_rows", None)
                if weight is not None and tensor.dtype == "F32" and weight.shape == tensor.shape and not is_grown:
                    weight.copy_(stored.get_tensor(name))
    return model
