"""python -m studio.worker.convert FILE.gguf FOLDER: a GGUF model as bf16 safetensors, tokenizer and template."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio import device
from studio.talk.reference import ModelReference, of_folder
from studio.worker import gguf_config


def dequantized(file: Path, dtype: torch.dtype) -> Any:
    """The model in a GGUF file, as llama.cpp computes it. Raises ValueError for what transformers does not read."""
    config = gguf_config.read(file)
    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype, config=config)


def convert(gguf: Path, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write config, weights and tokenizer into a folder, dequantized by transformers, without traces of that."""
    model = dequantized(gguf, dtype)
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(folder, safe_serialization=True)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def read_back(file: Path, scratch: Path) -> ModelReference:
    """A GGUF file converted by transformers, with the template and end token it carries."""
    convert(file, scratch / "model", read_dtype(file))
    return of_folder(scratch / "model", str(file))


def read_dtype(file: Path) -> torch.dtype:
    """float32 where memory has room for a GGUF file's weights in it, else float16."""
    return torch.float32 if 8 * file.stat().st_size < device.cpu().free else torch.float16


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
