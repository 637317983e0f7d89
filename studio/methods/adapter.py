"""Adapter: a small bottleneck after each sublayer, Adapter(x) = x + f(x·W_down)·W_up; the model is untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from studio.base import targets
from studio.base.quantization import Quantization
from studio.errors import OrderError
from studio.knob import OPTIMISATION, PRECISION
from studio.method import Method, Shapes, in_float32
from studio.model import ModelFacts

PARTS = {"houlsby": ("attention", "feed-forward"), "pfeiffer": ("feed-forward",)}


class Adapter(Method):
    """Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020, arXiv 2005.00247.

    Size 64 is the middle of Houlsby's sizes; rate 1e-3 is in the range of their sweep (3e-5 to 3e-3).
    """

    name: Literal["adapter"] = Field("adapter", frozen=True, title="Method", description="Adapter.")
    list_position: ClassVar[int] = 3
    label: ClassVar[str] = "Adapter"
    about: ClassVar[str] = "Puts a small trained network after the attention and the feed-forward part of every layer."
    advice: ClassVar[str] = (
        "Take it to keep many tasks beside one model, each in a small file that is switched in and out. "
        "It costs one to five percent of trained parameters and, unlike LoRA, a little time at every answer: it "
        "cannot be merged."
    )
    goes_on: ClassVar[bool] = True
    learning_rate: ClassVar[float] = 1e-3
    mergeable: ClassVar[bool] = False
    cannot_merge: ClassVar[str] = "Its networks bend between their two matrices, so no single weight can do the same."

    placement: Literal["houlsby", "pfeiffer"] = Field("houlsby", title="Placement")
    """houlsby: after attention and after feed-forward. pfeiffer: after feed-forward only, half the parameters, nearly
    as good."""
    size: int = Field(64, ge=1, le=4096, title="Size")
    """Width of the bottleneck. 8 is small, 64 usual, 256 large; parameters grow in proportion."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(
        "gelu", title="Activation", json_schema_extra=OPTIMISATION
    )
    """The bend between the two matrices; without it they would be one. gelu is as modern models have it."""
    residual: bool = Field(True, title="Residual", json_schema_extra=OPTIMISATION)
    """Adds the input to what the adapter makes. Switched off, it must learn to pass everything through: seldom good."""
    init: Literal["identity", "near"] = Field("identity", title="Start", json_schema_extra=OPTIMISATION)
    """identity: changes nothing before the first step. near: tiny random numbers, as in the paper; training starts a
    trifle faster."""
    dropout: float = Field(0.0, ge=0, lt=1, title="Dropout", json_schema_extra=OPTIMISATION)
    """Share of the bottleneck switched off at random while training; a little hinders learning by heart."""
    quantization: Literal["none", "nf4", "fp4", "int8"] = Field(
        "none", title="Bits of the base", json_schema_extra=PRECISION
    )
    """Holds the base in 4 or 8 bits, as QLoRA does: a third to a half of its memory, a little slower."""

    def quantized(self) -> Quantization | None:
        return None if self.quantization == "none" else Quantization(self.quantization)

    def _target_widths(self, linears: targets.Linears, layers: int) -> dict[str, int]:
        """Module name -> width of every linear with a bottleneck. Raises OrderError where a sublayer ends in none."""
        ends = targets.ends(linears)
        for part in PARTS[self.placement]:
            if len(ends[part]) != layers:
                has_pfeiffer = part != "feed-forward" and ends["feed-forward"]
                other = "Take placement pfeiffer, or lora" if has_pfeiffer else "Take lora"
                raise OrderError(
                    f"{len(ends[part])} of the {layers} layers have a {part} part that ends in one linear; an "
                    "adapter must stand behind each.",
                    f"{other}.",
                    "method.placement",
                )
        return {name: linears[name][1] for part in PARTS[self.placement] for name in ends[part].values()}

    def trained(self, facts: ModelFacts) -> Shapes:
        """2·m·d + d + m for each target linear (Houlsby, section 2.1): both matrices with their biases."""
        shapes: Shapes = {}
        for name, width in self._target_widths(facts.linears(), facts.num_hidden_layers).items():
            shapes |= {
                f"{name}.adapter_down.weight": (self.size, width),
                f"{name}.adapter_down.bias": (self.size,),
                f"{name}.adapter_up.weight": (width, self.size),
                f"{name}.adapter_up.bias": (width,),
            }
        return shapes

    def wrap(self, model: Any) -> Any:
        from peft import get_peft_model

        from studio.worker.bottleneck import BottleneckConfig

        widths = self._target_widths(targets.live(model), model.config.get_text_config().num_hidden_layers)
        config = BottleneckConfig(
            size=self.size,
            activation=self.activation,
            residual=self.residual,
            init=self.init,
            dropout=self.dropout,
            task_type="CAUSAL_LM",
            target_modules=targets.condense(widths, [name for name, _ in model.named_modules()]),
        )
        return in_float32(get_peft_model(model, config))

    def attach(self, model: Any, folder: Path, name: str = "default") -> Any:
        import studio.worker.bottleneck  # noqa: F401 - registers the tuner in peft

        return super().attach(model, folder, name)
