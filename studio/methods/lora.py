"""LoRA: beside each chosen linear W a low-rank ΔW = (alpha / rank) · B·A is trained; W stays as it is."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from studio import token_rows
from studio.base import families, targets
from studio.base.tensors import TABLES
from studio.errors import OrderError
from studio.knob import OPTIMISATION
from studio.method import Method, Shapes, in_float32, trained_weights
from studio.methods import lora_start
from studio.model import ModelFacts

UNTOUCHED = ("lm_head", "embed_out", "embed_in", "embed_tokens", "wte")
HEAD_BIAS = re.compile(r"(^|\.)(lm_head|embed_out)\.bias$")
# keys of an adapter_config.json that is more than B·A beside stored weights
BEYOND_PLAIN = (
    "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "layer_replication",
    "target_parameters", "use_qalora", "use_bdlora"
)  # fmt: skip
DORA_QUANTIZERS = ("bitsandbytes", "")  # of a base that comes quantized: where peft has DoRA for it


class LoRA(Method):
    """Hu et al. 2021, arXiv 2106.09685. Defaults as taught: rank 16, alpha = 2·rank, dropout 0.05, rate 2e-4."""

    name: Literal["lora"] = Field("lora", frozen=True, title="Method", description="LoRA.")
    list_position: ClassVar[int] = 0
    label: ClassVar[str] = "LoRA"
    about: ClassVar[str] = "Trains two small matrices beside each chosen layer; the model itself stays untouched."
    advice: ClassVar[str] = (
        "Take it first: it is nearly as good as training everything and forgets little. "
        "It costs the model's own memory plus about one percent of trained parameters, and nothing more once merged."
    )
    learning_rate: ClassVar[float] = 2e-4
    goes_on: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True
    trains_tokens: ClassVar[bool] = True

    rank: int = Field(16, ge=1, le=1024, title="Rank")
    """Width r of the two small matrices: 8 for simple tasks, 16-32 for complex ones, 64 for a new field of knowledge.
    Twice the rank is twice the trained parameters: r · (in + out) a layer."""
    alpha: float | None = Field(None, gt=0, le=4096, title="Alpha")
    """Strength of the change, ΔW = (alpha / rank) · B·A. Left out: 2 · rank, the usual choice."""
    dropout: float = Field(0.05, ge=0, lt=1, title="Dropout")
    """Share of the input switched off at random while training; a little (0.05) hinders learning by heart."""
    target_modules: str | tuple[str, ...] = Field(
        "all-linear", title="Target modules", json_schema_extra={"choices": list(targets.PRESETS)}
    )
    """Which layers get matrices: q-v (the first to take, smallest), attention (then k and o), all-linear (feed-forward
    too, best quality), or names of your own. Embeddings, head and stacked experts are left alone."""
    rslora: bool = Field(False, title="Rank-stabilised scaling", json_schema_extra=OPTIMISATION)
    """Scales by alpha / √rank instead of alpha / rank, so that ranks of 64 and more really learn more (rsLoRA)."""
    dora: bool = Field(False, title="DoRA", json_schema_extra=OPTIMISATION)
    """Learns the length of each weight row apart from its direction: often better at low rank, slower to train."""
    init: Literal["kaiming", "gaussian", "pissa", "olora", "eva"] = Field(
        "kaiming", title="Start", json_schema_extra=OPTIMISATION
    )
    """What the matrices hold at the start. kaiming and gaussian: no change yet. pissa and olora start from the weight's
    own main directions, eva from those of your data: fewer steps, a longer start."""
    plus_ratio: float = Field(1.0, ge=1, le=64, title="LoRA+ ratio", json_schema_extra=OPTIMISATION)
    """How many times faster B learns than A; 16 is the paper's advice (LoRA+), 1 switches it off."""
    modules_to_save: tuple[str, ...] = Field(
        (), max_length=16, title="Modules trained in full", json_schema_extra=OPTIMISATION
    )
    """Parts trained and saved whole beside the matrices, such as lm_head or embed_tokens for new words. Costs their
    full size in memory."""

    @field_validator("target_modules", "modules_to_save", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """q_proj, v_proj written in one line means two names; a preset stays a word."""
        return targets.split_names(value, targets.PRESETS)

    @field_validator("target_modules")
    @classmethod
    def _not_empty(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError("name at least one layer, or all-linear")
        return value

    @property
    def shares_base(self) -> bool:
        """pissa and olora take their start out of the base's weights."""
        return self.init not in lora_start.FROM_WEIGHTS

    @property
    def effective_alpha(self) -> float:
        return 2.0 * self.rank if self.alpha is None else self.alpha

    # -- arithmetic

    def targets(self, facts: ModelFacts) -> targets.Linears:
        """Module name -> (in, out) of every linear adapted. Raises OrderError where a name matches nothing."""
        return self._choose(facts.linears(), facts.model_type)

    def _choose(self, linears: targets.Linears, model_type: str) -> targets.Linears:
        """The linears adapted. Raises OrderError for names that peft means otherwise in a model of this type."""
        names = families.not_for_lora(model_type)
        reachable = {name: shape for name, shape in linears.items() if name.rpartition(".")[2] not in names}
        words = () if isinstance(self.target_modules, str) else self.target_modules
        for word in words:
            if word in UNTOUCHED:
                raise OrderError(
                    f"The studio puts no LoRA on the embeddings or the head, and {word!r} is one of them.",
                    f"Set method.modules_to_save to [{word}], which trains it whole, and leave it out here.",
                    "method.target_modules",
                )
            meant = [name for name in linears if targets.is_called(name, word)]
            if meant and not any(name in reachable for name in meant):
                raise OrderError(
                    f"peft puts no LoRA on {word!r} of a {model_type} model: it refuses that layer, or takes the name "
                    "for the stacked experts.",
                    f"Take all-linear, or some of: {', '.join(targets.words(reachable))}.",
                    "method.target_modules",
                )
        return targets.choose(self.target_modules, reachable)

    def trained(self, facts: ModelFacts) -> Shapes:
        """A is rank × in, B is out × rank: rank · (in + out) a layer (paper, section 4.1); DoRA adds a length a row."""
        shapes: Shapes = {}
        for name, (inputs, outputs) in self.targets(facts).items():
            if self.init in lora_start.LIMITED:
                lora_start.check_rank(self.init, self.rank, name, min(inputs, outputs))
            shapes[f"{name}.lora_A"] = (self.rank, inputs)
            shapes[f"{name}.lora_B"] = (outputs, self.rank)
            if self.dora:
                shapes[f"{name}.lora_magnitude_vector"] = (outputs,)
        for word in self.modules_to_save:
            shapes |= _fully_trained(word, facts)
        if facts.token_rows:
            shapes |= {
                name.removesuffix(".weight") + token_rows.DELTA_SUFFIX: (facts.token_rows, facts.tensors[name].shape[1])
                for name in self._tables_with_new_rows(facts)
            }
        return shapes

    def _tables_with_new_rows(self, facts: ModelFacts) -> list[str]:
        """The tables of which only the rows of new tokens are trained."""
        return [
            name
            for name in facts.tables()
            if not any(targets.is_called(name.removesuffix(".weight"), word) for word in self.modules_to_save)
        ]

    def refuse_tokens(self, facts: ModelFacts) -> None:
        whole = [word for word in self.modules_to_save if TABLES.search(f"{word}.weight")]
        if facts.tie_word_embeddings and len(whole) == 1:
            raise OrderError(
                f"Head and embedding of this model are one table; with {whole[0]} trained apart, the other would have "
                "no rows for new tokens.",
                "Leave method.modules_to_save out: the rows of new tokens are trained anyway; or name both.",
                "method.modules_to_save",
            )
        if self.init == "eva" and self._tables_with_new_rows(facts):
            raise OrderError(
                "Start eva takes the directions of every layer's inputs, and peft's rows for new tokens have none.",
                "Set method.init to kaiming, or leave data.new_tokens out.",
                "method.init",
            )
        head = next((name for name in facts.tensors if HEAD_BIAS.search(name)), None)
        if head and not {"lm_head", "embed_out"} & set(whole):
            message = f"This model's head has a bias ({head}), which peft leaves out where it trains rows of a table."
            hint = "Set method.name to full, or leave data.new_tokens out."
            raise OrderError(message, hint, "data.new_tokens")

    def refuse(self, facts: ModelFacts | None, training: Any, device: Any) -> None:
        if self.dora and self.init in lora_start.FROM_WEIGHTS:
            message = f"DoRA does not go with start {self.init}: both take the weight apart."
            hint = "Set method.init to kaiming."
            raise OrderError(message, hint, "method.init")
        if self.init == "olora" and facts and facts.model_type == "gpt2":
            hint = "Set method.init to kaiming or pissa."
            raise OrderError("Start olora does not work on GPT-2's transposed layers.", hint, "method.init")
        quantizer = facts.quantizer if facts else ""
        if self.dora and quantizer not in DORA_QUANTIZERS:
            hint = "Set method.dora to false, or take the unquantized model."
            raise OrderError(f"DoRA does not work on layers quantized by {quantizer}.", hint, "method.dora")
        super().refuse(facts, training, device)

    # -- with torch

    def wrap(self, model: Any) -> Any:
        from peft import EvaConfig, LoraConfig, get_peft_model

        chosen = self._choose(targets.live(model), model.config.model_type)
        whole = [
            name
            for name, _ in model.named_modules()
            if any(targets.is_called(name, word) for word in self.modules_to_save)
        ]
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.effective_alpha,
            lora_dropout=self.dropout,
            bias="none",
            task_type="CAUSAL_LM",
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=True if self.init == "kaiming" else self.init,
            eva_config=EvaConfig(rho=1.0) if self.init == "eva" else None,
            target_modules=targets.condense(chosen, [name for name, _ in model.named_modules()]),
            modules_to_save=whole or None,
            trainable_token_indices=token_rows.trainable_indices(model, whole),
        )
        wrapped = in_float32(get_peft_model(model, config, autocast_adapter_dtype=True))
        if self.init in lora_start.FROM_WEIGHTS:
            lora_start.remember(wrapped)
        return wrapped

    def initialize(self, model: Any, batches: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """EVA, which needs rows of the data."""
        if self.init == "eva":
            lora_start.from_data(model, batches())

    def parameter_groups(self, model: Any, learning_rate: float) -> list[dict[str, Any]] | None:
        """LoRA+ (arXiv 2402.12354): B learns plus_ratio times faster."""
        if self.plus_ratio == 1.0:
            return None
        weights = trained_weights(model).items()
        others = [weight for name, weight in weights if ".lora_B." not in name]
        fast = [weight for name, weight in weights if ".lora_B." in name]
        return [{"params": others, "lr": learning_rate}, {"params": fast, "lr": learning_rate * self.plus_ratio}]

    def save_result(self, model: Any, folder: Path) -> None:
        """As a plain LoRA; PiSSA and OLoRA become a change of the original W of twice the rank."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        config = copy.copy(model.peft_config[model.active_adapter])
        config.init_lora_weights, config.eva_config, config.inference_mode = True, None, True
        if hasattr(model, "initial_lora"):
            state = lora_start.as_weight_change(state, model.initial_lora)
            config.r, config.lora_alpha = 2 * self.rank, self.effective_alpha * (2**0.5 if self.rslora else 2)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: weight.cpu().contiguous().clone() for name, weight in state.items()},
            folder / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        config.save_pretrained(str(folder))


def _fully_trained(word: str, facts: ModelFacts) -> Shapes:
    """Tensors of the modules called `word`; a head tied to the embeddings gets a copy of its own when it is trained."""
    shapes = {
        f"{name} (whole)": tensor.shape
        for name, tensor in facts.tensors.items()
        if targets.is_called(name.rpartition(".")[0], word)
    }
    if not shapes and word in ("lm_head", "embed_out") and facts.tie_word_embeddings:
        shapes = {f"{word}.weight (whole)": (facts.vocab_size, facts.hidden_size)}
    if not shapes:
        known = sorted({name.rpartition(".")[0].rsplit(".", 1)[-1] for name in facts.tensors})
        hint = f"It has: {', '.join(known)}."
        raise OrderError(f"No part of this model is called {word!r}.", hint, "method.modules_to_save")
    return shapes
