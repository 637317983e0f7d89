"""A base model held in 4 or 8 bits by bitsandbytes: where it works, how it is loaded. No torch at the top."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any, NamedTuple

from studio import memory_peak
from studio.device import Device
from studio.errors import OrderError

# quantizers of weights on disk beside which adapters are trained -> the package that unpacks them
STORED = {"bitsandbytes": "bitsandbytes", "gptq": "gptqmodel", "awq": "gptqmodel"}


def refuse_stored(quantizer: str) -> None:
    """Raise OrderError for a model whose weights lie quantized on disk in a way that cannot be trained beside here."""
    original = "Take the model that it was made from"
    if quantizer not in STORED:
        message = f"This model's weights are quantized ({quantizer}), and nothing is trained beside those here."
        hint = f"{original}."
        raise OrderError(message, hint, "model")
    if find_spec(STORED[quantizer]) is None:
        raise OrderError(
            f"This model's weights are quantized ({quantizer}), and {STORED[quantizer]}, which unpacks them, is not "
            "installed.",
            f"{original}, or run `pip install {STORED[quantizer]}`.",
            "model",
        )


class Quantization(NamedTuple):
    """kind: nf4, fp4 or int8; double: the scales are quantized too; compute: auto, bf16, fp16 or fp32."""

    kind: str
    double: bool = True
    compute: str = "auto"

    def refuse(self, device: Device) -> None:
        """Raise OrderError where bitsandbytes is missing or cannot compute."""
        if find_spec("bitsandbytes") is None:
            message = f"A base in {self.kind} needs bitsandbytes, which is not installed."
            hint = "Run `pip install bitsandbytes`, or take method lora."
            raise OrderError(message, hint, "method.quantization")
        least = (7, 5) if self.kind == "int8" else (6, 0)
        if not device.traits.quantizes:
            hint = "Take method lora there."
            raise OrderError(f"bitsandbytes cannot train on {device.name}.", hint, "method.quantization")
        if device.kind == "cuda" and device.capability and device.capability < least:
            raise OrderError(
                f"{device.name} (compute capability {device.capability[0]}.{device.capability[1]}) is too old for "
                f"{self.kind}; "
                f"it needs {least[0]}.{least[1]}.",
                "Take nf4, or method lora.",
                "method.quantization",
            )
        if self.compute == "bf16" and not device.bf16:
            hint = "Set method.compute to auto or fp16."
            raise OrderError(f"{device.name} cannot compute in bf16.", hint, "method.compute")

    def options(self, dtype: Any) -> dict[str, Any]:
        """Arguments of from_pretrained. dtype: of what is not quantized and, by default, of computing (torch.dtype)."""
        import torch
        from transformers import BitsAndBytesConfig

        if self.kind == "int8":
            # it warns at every product that it computes in 16 bits
            logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
            return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
        compute = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}.get(self.compute, dtype)
        return {
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=self.kind,
                bnb_4bit_use_double_quant=self.double,
                bnb_4bit_compute_dtype=compute,
            )
        }

    @staticmethod
    def settle(model: Any) -> Any:
        """A model that was loaded with `options`, made ready for training, and what only loading needed given back.

        On a CPU what is not quantized is copied out of the model's file, which would else stay mapped whole, and the
        heap is trimmed, which packing leaves full of empty pages.
        """
        if model.device.type == "cpu":
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.dtype.is_floating_point:
                    tensor.data = tensor.data.clone()
            memory_peak.begin_anew()
            memory_peak.trim()
        for module in model.modules():
            # Else bitsandbytes repacks 4-bit weights for AVX512 CPUs at the first pass without gradient, for a kernel
            # without a backward pass: after one evaluation no gradient would come through, and no error would say so.
            # It also needs widths that are multiples of 64.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        return model
