"""Prompt tuning: a few trained vectors stand before the text, at the input only: [P_1 … P_n, x_1, x_2, …]."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from studio.method import Shapes
from studio.methods.virtual_tokens import VirtualTokens
from studio.model import ModelFacts


class Prompt(VirtualTokens):
    """Lester et al. 2021, arXiv 2104.08691: a start from words beats one from noise; rates are far above LoRA's."""

    name: Literal["prompt"] = Field("prompt", frozen=True, title="Method", description="Prompt tuning.")
    list_position: ClassVar[int] = 6
    label: ClassVar[str] = "Prompt tuning"
    about: ClassVar[str] = "Trains a handful of vectors that stand before the text, and nothing else."
    advice: ClassVar[str] = (
        "Take it for quick experiments and for many small tasks on one model: the result is a few kilobytes. "
        "It costs next to nothing to store, but learns slowly and reaches the least, above all on small models."
    )
    learning_rate: ClassVar[float] = 3e-2
    start_without_text: ClassVar[str] = "words"

    init: Literal["text", "words", "random"] = Field("text", title="Start")
    """text: the vectors of your words below. words: of words drawn at random. random: noise, which learns slowest."""
    text: str = Field(VirtualTokens.START, max_length=4000, title="Text to start from")
    """An instruction for the task, repeated or cut to the number of virtual tokens; only used with start text."""

    def trained(self, facts: ModelFacts) -> Shapes:
        return {"prompt_encoder.embedding": (self.virtual_tokens, facts.hidden_size)}

    def wrap(self, model: Any) -> Any:
        from peft import PromptTuningConfig

        wrapped = self.wrap_with(
            model,
            PromptTuningConfig(
                task_type="CAUSAL_LM",
                num_virtual_tokens=self.virtual_tokens,
                prompt_tuning_init="SAMPLE_VOCAB" if self.init == "words" else "RANDOM",
            ),
        )
        if self.init == "text":
            # Filled in here rather than by peft, which would write the tokenizer's local path into the result.
            vectors = wrapped.prompt_encoder[wrapped.active_adapter].embedding.weight
            vectors.data.copy_(model.get_input_embeddings().weight.data[self.text_ids(model, self.text)])
        return wrapped
