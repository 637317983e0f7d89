"""(IA)³: keys, values and the feed-forward's inner activations are multiplied by trained vectors; nothing is added."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from studio.base import targets
from studio.knob import OPTIMISATION
from studio.method import Method, Shapes, in_float32
from studio.model import ModelFacts

KEY_VALUE = re.compile(r"(?:^|\.)(?:k|k_proj|k_lin|key|wk|v|v_proj|v_lin|value|wv|kv_b_proj)$")


class IA3(Method):
    """Liu et al. 2022 (T-Few), arXiv 2205.05638: rate 3e-3; vectors start at 1 and change nothing before step 1."""

    name: Literal["ia3"] = Field("ia3", frozen=True, title="Method", description="IA³.")
    list_position: ClassVar[int] = 7
    label: ClassVar[str] = "IA³"
    about: ClassVar[str] = "Trains one factor for each key, value and inner activation: louder or softer, nothing new."
    advice: ClassVar[str] = (
        "Take it when there are only a few dozen examples, or when the result must be tiny: about 0.01 percent of "
        "the model. It costs almost nothing and merges away, but cannot teach much that is new."
    )
    learning_rate: ClassVar[float] = 3e-3
    goes_on: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True

    target_modules: str | tuple[str, ...] = Field(
        "auto", title="Target modules", json_schema_extra={"choices": ["auto"]}
    )
    """Layers whose output is scaled. auto: keys and values, as in the paper; or names of your own."""
    feedforward_modules: str | tuple[str, ...] = Field(
        "auto", title="Feed-forward modules", json_schema_extra={"choices": ["auto", "none"], **OPTIMISATION}
    )
    """Layers whose input is scaled. auto: the last linear of the feed-forward, as in the paper; none; or names of your
    own."""

    @field_validator("target_modules", "feedforward_modules", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return targets.split_names(value, ("auto", "none"))

    @field_validator("target_modules")
    @classmethod
    def _not_empty(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value or value == "none":
            raise ValueError("name at least one layer, or auto")
        return value

    def _choose(self, linears: targets.Linears) -> tuple[targets.Linears, targets.Linears]:
        """(linears scaled at the output, at the input). Raises OrderError where a name matches nothing."""
        if self.target_modules == "auto":
            keys_and_values = {name: shape for name, shape in linears.items() if KEY_VALUE.search(name)}
            by_output = keys_and_values or targets.choose("q-v", linears)
        else:
            by_output = targets.choose(self.target_modules, linears)
        if self.feedforward_modules == "auto":
            by_input = {name: linears[name] for name in targets.ends(linears)["feed-forward"].values()}
        elif self.feedforward_modules in ("none", ()):
            by_input = {}
        else:
            by_input = targets.choose(self.feedforward_modules, linears, "method.feedforward_modules")
        return {name: shape for name, shape in by_output.items() if name not in by_input}, by_input

    def trained(self, facts: ModelFacts) -> Shapes:
        """A factor an output of each target, an input of each feed-forward module."""
        by_output, by_input = self._choose(facts.linears())
        return {f"{name}.ia3_l": (out,) for name, (_, out) in by_output.items()} | {
            f"{name}.ia3_l": (inputs,) for name, (inputs, _) in by_input.items()
        }

    def auto_values(self, facts: ModelFacts, precision: str) -> dict[str, tuple[Any, str]]:
        chosen = self._choose(facts.linears())
        by_output, by_input = (", ".join(sorted({name.rsplit(".", 1)[-1] for name in names})) for names in chosen)
        return {
            "target_modules": (by_output, "keys and values of this model"),
            "feedforward_modules": (by_input, "the last linear of its feed-forward"),
        }

    def wrap(self, model: Any) -> Any:
        from peft import IA3Config, get_peft_model

        by_output, by_input = self._choose(targets.live(model))
        names = [name for name, _ in model.named_modules()]
        feed_forward = targets.condense(by_input, names)
        return in_float32(
            get_peft_model(
                model,
                IA3Config(
                    task_type="CAUSAL_LM",
                    target_modules=targets.condense(by_output, names) + feed_forward,
                    feedforward_modules=feed_forward,
                ),
            )
        )
