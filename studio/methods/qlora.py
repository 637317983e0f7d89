"""QLoRA: LoRA beside a base held in 4 bits, which is dequantized layer by layer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from studio.base.quantization import Quantization
from studio.errors import OrderError
from studio.knob import OPTIMISATION, PRECISION
from studio.methods.lora import LoRA
from studio.model import ModelFacts


class QLoRA(LoRA):
    """Dettmers et al. 2023, arXiv 2305.14314: NF4, double quantization, all linears; rate 2e-4 (table 9, to 13B)."""

    name: Literal["qlora"] = Field("qlora", frozen=True, title="Method", description="QLoRA.")
    list_position: ClassVar[int] = 2
    label: ClassVar[str] = "QLoRA"
    about: ClassVar[str] = "LoRA beside a base that is held in 4 bits, at about a third of its memory."
    advice: ClassVar[str] = (
        "Take it when LoRA does not fit: a model of 7 billion weights trains in about 6 GB. "
        "It costs some speed, because weights are unpacked at every step, and a very little quality."
    )
    learning_rate: ClassVar[float] = 2e-4

    quantization: Literal["nf4", "fp4", "int8"] = Field("nf4", title="Bits of the base")
    """How the base is held: nf4 (4 bits, made for the bell curve of weights), fp4 (4 bits, plain), int8 (8 bits, twice
    the memory)."""
    double_quant: bool = Field(True, title="Double quantization", json_schema_extra=PRECISION)
    """Quantizes the scales of the 4-bit blocks too: saves 0.37 bit a weight, about 0.3 GB at 7 billion."""
    compute: Literal["auto", "bf16", "fp16", "fp32"] = Field("auto", title="Compute type", json_schema_extra=PRECISION)
    """The number format that 4-bit weights are unpacked to for multiplying. auto: as the run's precision."""
    init: Literal["kaiming", "gaussian", "eva"] = Field("kaiming", title="Start", json_schema_extra=OPTIMISATION)
    """What the matrices hold at the start. kaiming and gaussian: no change yet. eva: the main directions of your data;
    fewer steps, a longer start."""

    def quantized(self) -> Quantization:
        return Quantization(self.quantization, self.double_quant, self.compute)

    def auto_values(self, facts: ModelFacts, precision: str) -> dict[str, tuple[Any, str]]:
        return {"compute": (precision, "as the run's precision")}

    def optimizer(self, device: Any) -> str | None:
        """Paged 8-bit AdamW on CUDA (paper, section 3), whose states spill to RAM where memory is short.

        It waits for the device after every tensor, and so is not taken where there is room.
        """
        return "paged_adamw_8bit" if device.traits.pages else None

    def refuse(self, facts: ModelFacts | None, training: Any, device: Any) -> None:
        quantizer = facts.quantizer if facts else ""
        if quantizer:
            hint = "Take the model it was made from, or method lora."
            raise OrderError(f"This model is already quantized ({quantizer}).", hint, "model")
        if self.dora and self.quantization == "int8" and not device.traits.pages:
            hint = "Set method.dora to false, or method.quantization to nf4."
            raise OrderError("DoRA does not work on 8-bit layers without CUDA.", hint, "method.dora")
        super().refuse(facts, training, device)
