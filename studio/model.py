"""ModelFacts: what a base model's own files say about it. No torch, no weights read: config.json and tensor headers."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from studio import json_text
from studio.base import catalogue, config_json, families, headers, shards, source, targets
from studio.base.source import ModelOrder
from studio.base.tensors import BESIDE_QUANTIZED, EMBEDDING, FLOATS, HEAD, QUANT_STATE, TABLES, TOKENS, Tensor, header
from studio.errors import ModelError, reading_model_file
from studio.home import PROJECT


class ModelFacts(BaseModel):
    """Shapes of a decoder-only model. Widths in elements; `tensors` holds every stored weight, tied ones once."""

    model_config = ConfigDict(frozen=True)
    architecture: str
    model_type: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    max_position_embeddings: int | None
    dtype: str  # of the checkpoint: bfloat16, float16, float32
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    token_rows: int = 0  # rows of its tables that are trained for new tokens

    __hash__ = object.__hash__  # by identity: tensors and config have none, and what is computed of them is cached

    @property
    def parameters(self) -> int:
        return _parameters(self)

    @property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors.values())

    @property
    def stored_dtype(self) -> str:
        """float32, bfloat16 or float16, in which most of the stored numbers are; else what config.json says."""
        sizes = {
            dtype: sum(tensor.size for tensor in self.tensors.values() if tensor.dtype == stored)
            for stored, dtype in FLOATS.items()
        }
        return max(sizes, key=sizes.__getitem__) if any(sizes.values()) else self.dtype

    @property
    def exact(self) -> set[str]:
        """Names of tensors stored in float32 beside others in 16 bits: norms, routers, states that need it."""
        alone = self.stored_dtype == "float32"
        return set() if alone else {name for name, tensor in self.tensors.items() if tensor.dtype == "F32"}

    @property
    def rows(self) -> int:
        """Tokens that the embedding table has a row for; config.json may say otherwise."""
        tables = [
            tensor.shape[0] for name, tensor in self.tensors.items() if TOKENS.search(name) and len(tensor.shape) == 2
        ]
        return tables[0] if tables else self.vocab_size

    @property
    def quantizer(self) -> str:
        """What the weights on disk are quantized by (gptq, awq, fp8, bitsandbytes, …); "" for plain ones."""
        settings = self.config.get("quantization_config") or self.text_config.get("quantization_config")
        return str(settings.get("quant_method") or "bitsandbytes") if isinstance(settings, dict) else ""

    @property
    def stored_quantization(self) -> tuple[str, bool] | None:
        """(kind, whether the scales are quantized too) of weights that lie on disk as bitsandbytes packs them."""
        if self.quantizer != "bitsandbytes":
            return None
        settings = self.config.get("quantization_config") or self.text_config["quantization_config"]
        if settings.get("load_in_8bit"):
            return "int8", False
        return str(settings.get("bnb_4bit_quant_type", "nf4")), bool(settings.get("bnb_4bit_use_double_quant"))

    @property
    def text_config(self) -> dict[str, Any]:
        """config.json; of a model that reads more than text, with the settings of the text model inside it on top."""
        return families.text_config(self.config)

    @property
    def context(self) -> int | None:
        """Tokens the model reads at most, its stretching of positions counted; None where its files do not say."""
        rope = families.rope_parameters(self.text_config)
        factor = rope.get("factor")
        if self.max_position_embeddings is None or not isinstance(factor, (int, float)):
            return self.max_position_embeddings
        return max(
            self.max_position_embeddings,
            int(factor * (rope.get("original_max_position_embeddings") or self.max_position_embeddings)),
        )

    def tables(self) -> list[str]:
        """The tensors with a row for each token: embedding, and the head where it is a table of its own."""
        found = [name for name, tensor in self.tensors.items() if TABLES.search(name) and len(tensor.shape) == 2]
        return [name for name in found if TOKENS.search(name) or not self.tie_word_embeddings]

    def grown(self, size: int, rows: int) -> ModelFacts:
        """These facts with tables of `size` rows at least, of which `rows` are trained for new tokens."""
        tensors = {
            name: tensor.model_copy(update={"shape": (max(size, tensor.shape[0]), *tensor.shape[1:])})
            if TABLES.search(name)
            else tensor
            for name, tensor in self.tensors.items()
        }
        return self.model_copy(
            update={"tensors": tensors, "vocab_size": max(size, self.vocab_size), "token_rows": rows}
        )

    def linears(self) -> dict[str, tuple[int, int]]:
        """Module name -> (in, out) of every linear inside the layers; embeddings and head left out, as peft's
        all-linear does.
        """
        return _linears(self)


@lru_cache(maxsize=32)
def _parameters(facts: ModelFacts) -> int:
    return sum(tensor.size for tensor in facts.tensors.values())


@lru_cache(maxsize=32)
def _linears(facts: ModelFacts) -> dict[str, tuple[int, int]]:
    conv1d = facts.model_type in ("gpt2", "openai-gpt")  # GPT and GPT-2 store their linears transposed
    routers = targets.routers(facts.tensors)
    linears = {}
    for name, tensor in facts.tensors.items():
        module = name.removesuffix(".weight")
        if module == name or len(tensor.shape) != 2 or module in routers:
            continue
        if not any(pattern.search(module) for pattern in (EMBEDDING, HEAD, targets.ROUTED)):
            linears[module] = tensor.shape if conv1d else tensor.shape[::-1]
    return linears


def facts(folder: Path) -> ModelFacts:
    """Read a model folder's config.json and safetensors headers. Raises ModelError where either is unusable."""
    files = [f for f in folder.glob("*") if f.suffix in (".json", ".safetensors") and f.is_file()]
    stamp = tuple(sorted((f.name, f.stat().st_mtime_ns) for f in files))
    return _facts(folder, stamp)


@lru_cache(maxsize=32)
def _facts(folder: Path, stamp: tuple) -> ModelFacts:
    config = _config(folder)
    tensors: dict[str, Tensor] = {}
    for file in shards.weight_files(folder):
        tensors |= header(file)
    found = from_config(config, tensors)
    if found.quantizer == "bitsandbytes" and not any(tensor.dtype in ("U4", "I8", "U8") for tensor in tensors.values()):
        raise ModelError(
            f"config.json says that bitsandbytes has packed the weights, and the weight files hold them plainly, in "
            f"{found.stored_dtype}.",
            "Take quantization_config out of config.json; method qlora holds the weights in 4 bits while it trains.",
            "model",
        )
    return found


def facts_of(order: ModelOrder) -> ModelFacts:
    """Facts of an ordered model the cheapest way there is: headers on this disk, a config.json alone, a GGUF's head,
    the Hub's metadata.

    Raises ModelError where none of them can be had.

    """
    folder = source.local(order)
    if folder is not None:
        return (
            _from_config_file(folder / "config.json", (folder / "config.json").stat().st_mtime_ns)
            if shards.bare(folder)
            else facts(folder)
        )
    if order.kind == "gguf":
        path = Path(order.source).expanduser()
        source.check(order)
        return _from_gguf(path, path.stat().st_mtime_ns)
    if order.kind == "folder":
        source.check(order)
    if order.kind == "starter":
        return _from_config_file(STARTER, 0)
    try:
        return _from_hub(order.source, order.revision)
    except ModelError as error:
        known = from_catalogue(order.source) if error.reason in ("network", "gated") and not order.revision else None
        if known is None:
            raise
        return known


# so that a fresh machine estimates before anything is fetched
STARTER = PROJECT / "studio" / "samples" / "starter" / "config.json"


@lru_cache(maxsize=32)
def _from_config_file(file: Path, stamp: int) -> ModelFacts:
    return from_config(_config(file.parent))


@lru_cache(maxsize=8)
def _from_gguf(path: Path, stamp: int) -> ModelFacts:
    return _made(headers.gguf(path))


@lru_cache(maxsize=32)
def _from_hub(repo: str, revision: str | None) -> ModelFacts:
    return _made(headers.hub(repo, revision))


@lru_cache(maxsize=128)
def from_catalogue(repo: str) -> ModelFacts | None:
    """Facts of a model of the bundled catalogue, without the Hub; None for any other."""
    known = catalogue.headers(repo)
    return None if known is None else _made(known)


def _made(found: headers.Headers) -> ModelFacts:
    config, tensors = found
    if any(map(QUANT_STATE.search, tensors)):  # weights of 4 bits, which a file holds as [n / 2, 1]
        true = headers.from_config(config)[1]
        tensors = {
            name: ("U4", true[name][1]) if kind == "U8" and name in true else (kind, shape)
            for name, (kind, shape) in tensors.items()
        }
    return from_config(
        config,
        {
            name: Tensor(dtype=kind, shape=shape)
            for name, (kind, shape) in tensors.items()
            if not BESIDE_QUANTIZED.search(name)
        },
    )


def from_config(config: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> ModelFacts:
    """Facts from a parsed config.json and the weights' shapes. A text model inside a bigger one (text_config) is found.

    Raises ModelError for a config that says nothing usable.
    """
    with reading_model_file("config.json"):
        config_json.refuse_no_decoder(config)
        if tensors is None:
            tensors = {
                name: Tensor(dtype=kind, shape=shape) for name, (kind, shape) in headers.from_config(config)[1].items()
            }
        return ModelFacts(**config_json.fields(config, tensors), tensors=tensors, config=config)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not os.path.lexists(file):
        hint = "Give a folder that transformers' save_pretrained wrote."
        raise ModelError(f"{folder} has no config.json.", hint, "model")
    with reading_model_file(file):
        return dict(json_text.read(file.read_text(encoding="utf-8"), "config.json"))
