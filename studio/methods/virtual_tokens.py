"""What prefix, P- and prompt tuning share: trained vectors put before the text, the model untouched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from studio.errors import OrderError
from studio.footprint import Footprint
from studio.method import Method, in_float32
from studio.model import ModelFacts


class VirtualTokens(Method):
    """Trained vectors that the model reads before the text as if they were token embeddings."""

    allows_packing: ClassVar[bool] = False
    mergeable: ClassVar[bool] = False
    cannot_merge: ClassVar[str] = "It changes what the model reads, not its weights."

    start_without_text: ClassVar[str] = "random"  # what its knob `init` is best set to where no text is given
    START: ClassVar[str] = "Answer the following request well."

    virtual_tokens: int = Field(20, ge=1, le=1024, title="Virtual tokens")
    """How many trained vectors stand before the text. More can hold more, learn slower and take a share of the
    context."""

    def refuse(self, facts: ModelFacts | None, training: Any, device: Any) -> None:
        if getattr(self, "init", None) == "text" and not self.text.strip():
            hint = f"Give method.text, or set method.init to {self.start_without_text}."
            raise OrderError(f"{self.label} is to start from a text, but the text is empty.", hint, "method.text")
        super().refuse(facts, training, device)
        if facts is not None:
            self.refuse_layers(facts)

    def refuse_layers(self, facts: ModelFacts) -> None:
        """Raise OrderError for a model whose layers look up the token id again (Gemma 3n), which a vector has not."""
        if facts.text_config.get("hidden_size_per_layer_input"):
            raise OrderError(
                f"Every layer of this {facts.model_type} model looks a token up in a table of its own, and the trained "
                f"vectors of {self.label} are no tokens.",
                "Take method lora.",
                "method.name",
            )

    def footprint(self, facts: ModelFacts) -> Footprint:
        return replace(super().footprint(facts), virtual=self.virtual_tokens, dropout=0.0)

    def wrap_with(self, model: Any, config: Any) -> Any:
        """The frozen model under a peft prompt-learning config."""
        from peft import get_peft_model

        model.requires_grad_(False)
        wrapped = in_float32(get_peft_model(model, config))
        # peft keeps the vectors' indices on the host and copies them to the device in every step.
        wrapped.prompt_tokens = {name: indices.to(model.device) for name, indices in wrapped.prompt_tokens.items()}
        return wrapped

    def text_ids(self, model: Any, text: str) -> list[int]:
        """Token ids of a text, repeated or cut to the number of virtual tokens."""
        from transformers import AutoTokenizer

        ids = AutoTokenizer.from_pretrained(model.name_or_path)(text, add_special_tokens=False)["input_ids"]
        return (ids * (self.virtual_tokens // len(ids) + 1))[: self.virtual_tokens]
