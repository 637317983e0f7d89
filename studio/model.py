"""ModelFacts: what a base model's own files say about it. No torch, no weights read: config.json and tensor headers."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict

from studio import json_text
from studio.base import catalogue, families, headers, shards, source, targets
from studio.base.source import ModelOrder
from studio.errors import ModelError, reading_model_file
from studio.home import PROJECT

BYTES = {
    "F64": 8,
    "I64": 8,
    "F32": 4,
    "I32": 4,
    "BF16": 2,
    "F16": 2,
    "I16": 2,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "BOOL": 1,
    "U4": 0.5,  # packed by bitsandbytes
}

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")  # as config.json may call them
FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
DECODERS_ONLY = "Only decoder-only language models can be tuned here, such as Qwen/Qwen2.5-0.5B-Instruct."
# Tables that are looked up, not multiplied: they are no target for LoRA and its like, and stay 16-bit under 4-bit
# loading.
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens\w*|embed_positions|tokens_embed|positions_embed|wte|wpe|word_embeddings|tok_embeddings|"
    r"embed_in|embeddings?|transformer\.w)(\.|$)"
)
TOKENS = re.compile(r"(^|\.)(embed_tokens|tokens_embed|wte|word_embeddings|tok_embeddings|embed_in)\.weight$")
TABLES = re.compile(
    r"(^|\.)(embed_tokens|tokens_embed|wte|word_embeddings|tok_embeddings|embed_in|lm_head|embed_out)\.weight$"
)  # a row a token
# what bitsandbytes writes beside a weight: scales and tables, and of 4 bits the weight's own type and shape
QUANT_STATE = re.compile(r"\.quant_state\.bitsandbytes__\w+$")
BESIDE_QUANTIZED = re.compile(rf"\.weight\.(nested_)?(absmax|quant_map)$|\.(SCB|weight_format)$|{QUANT_STATE.pattern}")
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)(\.|$)|^head(\.|$)")


class Tensor(BaseModel):
    """One weight: its type as safetensors names it (BF16, F32, …) and its shape."""

    model_config = ConfigDict(frozen=True)
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return int(self.size * BYTES.get(self.dtype, 2))


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

    @property
    def parameters(self) -> int:
        return _parameters(ByIdentity((self,)))

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
        text = self.text_config
        rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
        factor = rope.get("factor") if isinstance(rope, dict) else None
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
        return _linears(ByIdentity((self,)))


class ByIdentity(tuple):
    """A one-tuple that is equal by identity of its element: facts are frozen but hold dicts, which cannot be hashed."""

    def __hash__(self) -> int:
        return id(self[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self[0] is other[0]


@lru_cache(maxsize=32)
def _parameters(key: ByIdentity) -> int:
    return sum(tensor.size for tensor in key[0].tensors.values())


@lru_cache(maxsize=32)
def _linears(key: ByIdentity) -> dict[str, tuple[int, int]]:
    facts: ModelFacts = key[0]
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
    stamp = tuple(
        sorted((f.name, f.stat().st_mtime_ns) for f in folder.glob("*") if f.suffix in (".json", ".safetensors"))
    )
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
        return _understood(config, tensors)


def _understood(config: dict[str, Any], tensors: dict[str, Tensor] | None) -> ModelFacts:
    if why := families.why_no_decoder(config):
        raise ModelError(f"config.json describes a {config.get('model_type')} model: {why}.", DECODERS_ONLY, "model")
    text = families.completed(families.text_config(config))
    if tensors is None:
        tensors = {
            name: Tensor(dtype=kind, shape=shape) for name, (kind, shape) in headers.from_config(config)[1].items()
        }

    def first(*keys: str, default: Any = None) -> Any:
        return next((text[key] for key in keys if text.get(key) is not None), default)

    hidden, heads = (
        first("hidden_size", "n_embd", "d_model"),
        first("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"),
    )
    layers = first(*LAYER_COUNTS, default=_listed_layers(text))
    vocabulary = first("vocab_size")
    _refuse_unsaid(
        config, hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=layers, vocab_size=vocabulary
    )
    _refuse_headless(text, tensors)
    _refuse_other_layers(text, tensors)
    return ModelFacts(
        architecture=(config.get("architectures") or ["?"])[0],
        model_type=config.get("model_type", "?"),
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=first("num_key_value_heads", default=heads),
        head_dim=first("head_dim", default=hidden // heads),
        intermediate_size=_widest(first("intermediate_size", "n_inner", "ffn_dim", "d_ff", default=4 * hidden)),
        vocab_size=vocabulary,
        tie_word_embeddings=_is_tied(config if "text_config" in config else text, tensors),
        max_position_embeddings=first("max_position_embeddings", "n_positions"),
        dtype=str(first("dtype", "torch_dtype", default="float32")),
        tensors=tensors,
        config=config,
    )


def _refuse_other_layers(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise ModelError where the weights are those of more or fewer layers than config.json says.

    transformers leaves the others out without a word, or starts them at random. Layers behind the last that only
    predict ahead (DeepSeek's) count neither way.
    """
    said = {count for key in (*LAYER_COUNTS, "num_layers_per_stack") if isinstance(count := config.get(key), int)}
    said |= {count + (config.get("num_nextn_predict_layers") or 0) for count in said}
    stored: dict[str, int] = {}
    for name in tensors:
        if (match := targets.LAYER.search(name)) and not targets.NOT_TEXT.search(name):
            stack = name[: match.start()]
            stored[stack] = max(stored.get(stack, 0), int(match[1]) + 1)
    if said and stored and not said & set(stored.values()):
        raise ModelError(
            f"config.json says {min(said)} layers, and the weight files hold {max(stored.values())}.",
            "Download the model again, config.json and weights from one place.",
            "model",
        )


def _is_tied(config: dict[str, Any], tensors: dict[str, Tensor]) -> bool:
    """Whether the head is the embedding's table: as the outermost config says, else where no head is stored."""
    said = config.get("tie_word_embeddings")
    return not any(HEAD.search(name) for name in tensors) if said is None else bool(said)


def _listed_layers(text: dict[str, Any]) -> int | None:
    """The number of layers in a config that lists the kind of each instead, as Nemotron-H's does."""
    kinds = text.get("layers_block_type") or text.get("layer_types")
    return len(kinds) if isinstance(kinds, list) else None


def _widest(width: int | list[int]) -> int:
    """The width of a feed-forward, of the widest where a config lists one for each layer, as Gemma 3n's does."""
    return max(width) if isinstance(width, list) else width


def _refuse_unsaid(config: dict[str, Any], **sizes: Any) -> None:
    """Raise ModelError for a config.json without one of the sizes, by the name that most families give it."""
    unsaid = [name for name, size in sizes.items() if not isinstance(size, int)]
    if unsaid == ["num_attention_heads"]:
        raise ModelError(
            f"config.json describes a {config.get('model_type')} model, which has no attention heads: models without "
            "attention are not tuned here.",
            DECODERS_ONLY,
            "model",
        )
    if unsaid:
        raise ModelError(
            f"config.json of type {config.get('model_type')!r} does not say {', '.join(unsaid)}.",
            DECODERS_ONLY,
            "model",
        )


def _refuse_headless(text: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise ModelError for weights without a head to write with, such as a classifier's: it would start at random."""
    known = (
        text.get("model_type") in families.DEFAULTS
        and "text_config" not in text
        and not text.get("tie_word_embeddings")
    )
    whole = any(TOKENS.search(name) for name in tensors)  # not only some of its tensors
    if known and whole and not any(HEAD.search(name) for name in tensors):
        named = (text.get("architectures") or ["?"])[0]
        raise ModelError(
            f"The weights hold no language model head (lm_head), and config.json ties none to the embedding: "
            f"they are of a {named}.",
            "Take the language model that it was made from.",
            "model",
        )


def header(file: Path) -> dict[str, Tensor]:
    """Names, types and shapes from the head of a safetensors file (8 bytes of length, then JSON); weights are not
    read. Those that bitsandbytes packed have their true shapes.
    """
    with reading_model_file(file):
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > 100_000_000:
                raise ValueError("header too long")
            head = json_text.read(stream.read(length), file.name)
            packed = dict(_packed_weights(stream, head))
        return {
            name: packed.get(name) or Tensor(dtype=item["dtype"], shape=tuple(item["shape"]))
            for name, item in head.items()
            if name != "__metadata__" and not BESIDE_QUANTIZED.search(name)
        }


def _packed_weights(stream: BinaryIO, head: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The weights in 4 bits, whose shapes bitsandbytes writes as JSON beside them; stream: behind the head."""
    start = stream.tell()
    for name, item in head.items():
        if mark := QUANT_STATE.search(name):
            begin, end = item["data_offsets"]
            stream.seek(start + begin)
            yield name[: mark.start()], Tensor(dtype="U4", shape=tuple(json.loads(stream.read(end - begin))["shape"]))


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not os.path.lexists(file):
        raise ModelError(
            f"{folder} has no config.json.", "Give a folder that transformers' save_pretrained wrote.", "model"
        )
    with reading_model_file(file):
        return dict(json_text.read(file.read_text(encoding="utf-8"), "config.json"))
