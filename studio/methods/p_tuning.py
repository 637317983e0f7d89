"""P-tuning: trained vectors before the text, made by a small network (MLP or LSTM) that ties them together."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from studio.knob import OPTIMISATION
from studio.method import Shapes
from studio.methods.virtual_tokens import VirtualTokens
from studio.model import ModelFacts


class PTuning(VirtualTokens):
    """Liu et al. 2021, arXiv 2103.10385: an encoder of the vectors, thrown away once they are learnt."""

    name: Literal["p_tuning"] = Field("p_tuning", frozen=True, title="Method", description="P-tuning.")
    list_position: ClassVar[int] = 5
    label: ClassVar[str] = "P-tuning"
    about: ClassVar[str] = "Trains vectors before the text through a small network; only the vectors are stored."
    advice: ClassVar[str] = (
        "Take it for one narrow task where prompt tuning learns too slowly. "
        "It costs a small network while training, a part of the context at every answer, and reaches less than LoRA."
    )
    learning_rate: ClassVar[float] = 1e-3

    encoder: Literal["mlp", "lstm"] = Field("mlp", title="Encoder")
    """The network that makes the vectors: mlp (quick, steady) or lstm (as in the paper, slower)."""
    hidden_size: int = Field(128, ge=1, le=16384, title="Hidden size")
    """Width of that network; more parameters while training, the stored vectors stay the same."""
    layers: int = Field(2, ge=1, le=8, title="LSTM layers", json_schema_extra=OPTIMISATION)
    """Layers of the LSTM; an mlp always has three linears."""
    dropout: float = Field(0.0, ge=0, lt=1, title="LSTM dropout", json_schema_extra=OPTIMISATION)
    """Share switched off between LSTM layers while training; needs two layers."""

    @model_validator(mode="after")
    def _check_used(self) -> PTuning:
        if self.encoder == "mlp" and (self.layers != 2 or self.dropout):
            raise ValueError("layers and dropout belong to encoder lstm; an mlp has neither")
        if self.dropout and self.layers == 1:
            raise ValueError("dropout acts between LSTM layers; with one layer there is no place for it")
        return self

    def trained(self, facts: ModelFacts) -> Shapes:
        """Vectors, and three linears (MLP), or a two-way LSTM and two linears."""
        hidden, inner = facts.hidden_size, self.hidden_size
        shapes: Shapes = {"prompt_encoder.embedding": (self.virtual_tokens, hidden)}
        if self.encoder == "mlp":
            sizes = [(inner, hidden), (inner, inner), (hidden, inner)]
        else:
            sizes = [(2 * inner, 2 * inner), (hidden, 2 * inner)]
            for layer in range(self.layers):
                for direction in ("", "_reverse"):
                    suffix = f"_l{layer}{direction}"
                    shapes |= {
                        f"prompt_encoder.lstm.weight_ih{suffix}": (4 * inner, hidden if layer == 0 else 2 * inner),
                        f"prompt_encoder.lstm.weight_hh{suffix}": (4 * inner, inner),
                        f"prompt_encoder.lstm.bias_ih{suffix}": (4 * inner,),
                        f"prompt_encoder.lstm.bias_hh{suffix}": (4 * inner,),
                    }
        for index, (outputs, inputs) in enumerate(sizes):
            shapes |= {
                f"prompt_encoder.mlp.{index}.weight": (outputs, inputs),
                f"prompt_encoder.mlp.{index}.bias": (outputs,),
            }
        return shapes

    def wrap(self, model: Any) -> Any:
        from peft import PromptEncoderConfig

        lstm = {"encoder_num_layers": self.layers, "encoder_dropout": self.dropout} if self.encoder == "lstm" else {}
        return self.wrap_with(
            model,
            PromptEncoderConfig(
                task_type="CAUSAL_LM",
                num_virtual_tokens=self.virtual_tokens,
                encoder_reparameterization_type=self.encoder.upper(),
                encoder_hidden_size=self.hidden_size,
                **lstm,
            ),
        )
