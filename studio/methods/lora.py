"""LoRA: beside each chosen linear W a low-rank ΔW = (alpha / rank) · B·A is trained; W stays as it is."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from studio.errors import OrderError
from studio.method import Method, Shapes
from studio.model import ModelFacts

TARGETS = {
    "q-v": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "all-linear": None,
}


class LoRA(Method):
    """Hu et al. 2021, arXiv 2106.09685. Defaults: rank 16, alpha = 2·rank, dropout 0.05, rate 2e-4."""

    name: Literal["lora"] = Field("lora", frozen=True)
    place: ClassVar[int] = 0
    label: ClassVar[str] = "LoRA"
    about: ClassVar[str] = "Trains two small matrices beside each chosen layer; the model itself stays untouched."
    advice: ClassVar[str] = ("Take it first: it is nearly as good as training everything and forgets little. "
                             "It costs the model's own memory plus about one percent of trained parameters.")
    learning_rate: ClassVar[float] = 2e-4
    mergeable: ClassVar[bool] = True

    rank: int = Field(16, ge=1, le=1024, title="Rank",
                      description="Width r of the two small matrices. 8 for simple tasks, 16-32 for complex ones, 64 for a new "
                                  "field of knowledge. Twice the rank: twice the trained parameters.")
    alpha: float | None = Field(None, gt=0, le=4096, title="Alpha",
                                description="Strength of the change: ΔW = (alpha / rank) · B·A. Left out: 2 · rank.")
    dropout: float = Field(0.05, ge=0, lt=1, title="Dropout",
                           description="Share of the input switched off at random while training; a little of it hinders learning by heart.")
    target_modules: str | tuple[str, ...] = Field(
        "all-linear", title="Target modules",
        description="Which layers get matrices: q-v (smallest), attention, all-linear (best quality), or names of your own.")

    @property
    def scale_alpha(self) -> float:
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def targets(self, facts: ModelFacts) -> dict[str, tuple[int, int]]:
        """Module name -> (in, out) of every linear that gets matrices. Raises OrderError where a name matches nothing."""
        wanted = TARGETS.get(self.target_modules, (self.target_modules,)) if isinstance(self.target_modules, str) else self.target_modules
        linears = facts.linears()
        if wanted is None:
            return linears
        for word in wanted:
            if not any(name == word or name.endswith("." + word) for name in linears):
                near = sorted({name.rsplit(".", 1)[-1] for name in linears})
                raise OrderError(f"No layer of this model is called {word!r}.", f"It has: {', '.join(near)}.", "method.target_modules")
        return {name: shape for name, shape in linears.items()
                if any(name == word or name.endswith("." + word) for word in wanted)}

    def trained(self, facts: ModelFacts) -> Shapes:
        """A is rank × in, B is out × rank: rank · (in + out) a layer (paper, section 4.1)."""
        shapes: Shapes = {}
        for name, (inputs, outputs) in self.targets(facts).items():
            shapes[f"{name}.lora_A"] = (self.rank, inputs)
            shapes[f"{name}.lora_B"] = (outputs, self.rank)
        return shapes

    def wrap(self, model: Any) -> Any:
        from peft import LoraConfig, get_peft_model
        words = TARGETS.get(self.target_modules, self.target_modules) if isinstance(self.target_modules, str) else self.target_modules
        config = LoraConfig(r=self.rank, lora_alpha=self.scale_alpha, lora_dropout=self.dropout, bias="none", task_type="CAUSAL_LM",
                            target_modules="all-linear" if words is None else [words] if isinstance(words, str) else list(words))
        return get_peft_model(model, config, autocast_adapter_dtype=True)
