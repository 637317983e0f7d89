"""Prefix tuning: trained keys and values stand before the text in every layer: Attention([P_k; K], [P_v; V], Q)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from studio.base import families, targets
from studio.errors import OrderError
from studio.footprint import Footprint
from studio.knob import OPTIMISATION
from studio.method import Shapes
from studio.methods.virtual_tokens import VirtualTokens
from studio.model import ModelFacts


class Prefix(VirtualTokens):
    """Li and Liang 2021, arXiv 2101.00190. The rate is far above LoRA's, as the prefix alone must move the model."""

    name: Literal["prefix"] = Field("prefix", frozen=True, title="Method", description="Prefix tuning.")
    list_position: ClassVar[int] = 4
    label: ClassVar[str] = "Prefix tuning"
    about: ClassVar[str] = "Trains keys and values that every layer's attention sees before the text."
    advice: ClassVar[str] = (
        "Take it for style and format with very little to store, about 0.1 percent of the model. "
        "It learns slower than LoRA, takes a part of the context, and does not go with gradient checkpointing."
    )
    learning_rate: ClassVar[float] = 1e-2
    allows_checkpointing: ClassVar[bool] = False

    projection: bool = Field(False, title="Projection")
    """Trains the prefix through a small network (reparametrisation): steadier in small data, many more parameters while
    training; only the prefix is stored."""
    hidden_size: int | None = Field(None, ge=1, le=16384, title="Projection width", json_schema_extra=OPTIMISATION)
    """Width of the projection network; only used with projection. Left out: as wide as a layer's keys."""
    init: Literal["text", "random", "zero"] = Field("text", title="Start", json_schema_extra=OPTIMISATION)
    """text: what the model itself keeps of the words below, so that it starts undisturbed. random: noise, which first
    must be unlearnt. zero: keys and values of nought. A projection always starts at random."""
    text: str = Field(VirtualTokens.START, max_length=4000, title="Text to start from")
    """An instruction for the task, repeated or cut to the number of virtual tokens; only used with start text."""

    @model_validator(mode="after")
    def _check_used(self) -> Prefix:
        if self.hidden_size is not None and not self.projection:
            raise ValueError("hidden_size is the projection's width; set projection to true, or leave it out")
        return self

    def refuse_layers(self, facts: ModelFacts) -> None:
        """Raise OrderError where not every layer keeps keys and values of one width, as peft's prefix has them."""
        if facts.model_type in families.WITHOUT_CACHE:
            raise OrderError(
                f"Prefix tuning hands a model keys and values, and a {facts.model_type} model takes none.",
                "Take method lora.",
                "method.name",
            )
        text = (name for name in facts.tensors if not targets.NOT_TEXT.search(name))
        widths = {name: facts.tensors[name].shape[0] for name in text if name.endswith("k_proj.weight")}
        layers, kept = facts.num_hidden_layers, len(widths) - (facts.text_config.get("num_kv_shared_layers") or 0)
        if widths and (kept < layers or set(widths.values()) != {facts.head_dim * facts.num_key_value_heads}):
            raise OrderError(
                f"Prefix tuning puts keys and values of one width before every layer's, and of the {layers} layers of "
                f"this {facts.model_type} model some have none of their own, or others.",
                "Take method lora.",
                "method.name",
            )

    def trained(self, facts: ModelFacts) -> Shapes:
        """layers · 2 · width a virtual token; with projection two linears instead (paper, section 4.3)."""
        width = facts.head_dim * facts.num_key_value_heads
        out = facts.num_hidden_layers * 2 * width
        if not self.projection:
            return {"prompt_encoder.embedding": (self.virtual_tokens, out)}
        inner = self.hidden_size or width
        return {
            "prompt_encoder.embedding": (self.virtual_tokens, width),
            "prompt_encoder.transform.0": (inner, width),
            "prompt_encoder.transform.0.bias": (inner,),
            "prompt_encoder.transform.2": (out, inner),
            "prompt_encoder.transform.2.bias": (out,),
        }

    def footprint(self, facts: ModelFacts) -> Footprint:
        return replace(super().footprint(facts), virtual=0, prefix=self.virtual_tokens)

    def wrap(self, model: Any) -> Any:
        from peft import PrefixTuningConfig

        wrapped = self.wrap_with(
            model,
            PrefixTuningConfig(
                task_type="CAUSAL_LM",
                num_virtual_tokens=self.virtual_tokens,
                prefix_projection=self.projection,
                encoder_hidden_size=self.hidden_size,
                init_weights="zero" if self.init == "zero" else None,
            ),
        )
        if self.init == "text" and not self.projection:
            self._init_from_text(wrapped, model)
        return wrapped

    def _init_from_text(self, wrapped: Any, model: Any) -> None:
        """Start from the keys and values of real words: better than noise, most of all on few rows (section 7.4)."""
        import torch
        from peft import initialize_kv_prefix_from_past_key_values
        from transformers import DynamicCache

        ids = torch.tensor([self.text_ids(model, self.text)], device=model.device)
        with torch.no_grad():
            # A cache of no configuration keeps every token; the model's own would keep a sliding window's only.
            cache = model(input_ids=ids, past_key_values=DynamicCache(), use_cache=True).past_key_values
        initialize_kv_prefix_from_past_key_values(wrapped, adapter_name=wrapped.active_adapter, past_key_values=cache)
