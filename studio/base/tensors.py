"""Tensors of a model's files: their types and shapes from a safetensors header, and what their names say.

No torch, and no weights are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict

from studio import json_text
from studio.errors import ModelError, reading_model_file

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

FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
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


def header(file: Path) -> dict[str, Tensor]:
    """Names, types and shapes from the head of a safetensors file (8 bytes of length, then JSON); weights are not
    read. Those that bitsandbytes packed have their true shapes. Raises ModelError for a file that is not whole.
    """
    with reading_model_file(file):
        status = file.stat()
        return _header(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=512)
def _header(file: Path, size: int, mtime_ns: int) -> dict[str, Tensor]:
    with open(file, "rb") as stream:
        items, _ = read_head(stream, file, size)
        packed = dict(_packed_weights(stream, items))
    return {
        name: packed.get(name) or Tensor(dtype=item["dtype"], shape=tuple(item["shape"]))
        for name, item in items.items()
        if not BESIDE_QUANTIZED.search(name)
    }


def read_head(stream: BinaryIO, file: Path, size: int) -> tuple[dict[str, dict[str, Any]], int]:
    """(name -> dtype, shape and data_offsets of each tensor; where the data begins). size: bytes of the file.

    Raises ModelError for a file that is not whole, ValueError for one that is no safetensors file.
    """
    length = int.from_bytes(stream.read(8), "little")
    if length > 100_000_000:
        raise ValueError("header too long")
    if size < 8 + length:
        raise _not_whole(file, size, 8 + length)
    head = json_text.read(stream.read(length), file.name)
    items = {name: item for name, item in head.items() if name != "__metadata__"}
    whole = 8 + length + max((item["data_offsets"][1] for item in items.values()), default=0)
    if size != whole:
        raise _not_whole(file, size, whole)
    return items, 8 + length


def _not_whole(file: Path, size: int, whole: int) -> ModelError:
    """size: bytes of the file; whole: what its beginning tells."""
    hint = "Delete it, and download it again."
    return ModelError(f"{file} is not whole: it has {size:,} of {whole:,} bytes.", hint, "model")


def _packed_weights(stream: BinaryIO, head: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The weights in 4 bits, whose shapes bitsandbytes writes as JSON beside them; stream: behind the head."""
    start = stream.tell()
    for name, item in head.items():
        if mark := QUANT_STATE.search(name):
            begin, end = item["data_offsets"]
            stream.seek(start + begin)
            yield name[: mark.start()], Tensor(dtype="U4", shape=tuple(json.loads(stream.read(end - begin))["shape"]))
