"""python -m studio.worker.convert FILE.gguf FOLDER: a GGUF model as bf16 safetensors, tokenizer and template."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from studio.export.gguf_families import PERIOD


def dequantized(file: Path, dtype: torch.dtype, base: str | Path | None = None) -> Any:
    """The model in a GGUF file, as transformers reads it.

    base: the folder of the model that it was written from, whose config.json tells how it is computed. Without one
    transformers guesses from the file, and leaves out Gemma's query scale and most stretching of positions.
    """
    known = {"config": _config(file, base)} if base else {}
    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype, **known)


def _config(file: Path, base: str | Path) -> Any:
    """The base's config, for the table, head, family and windows that the file has."""
    reader, config = GGUFReader(file), AutoConfig.from_pretrained(base).get_text_config()
    rows = {tensor.name: int(tensor.shape[-1]) for tensor in reader.tensors}
    settings = {**config.to_dict(), "tie_word_embeddings": "output.weight" not in rows}
    settings |= {"vocab_size": rows["token_embd.weight"], "quantization_config": None}
    family = settings.pop("model_type")
    if family not in PERIOD:  # llama.cpp computes the others without
        settings |= {"sliding_window": None, "use_sliding_window": False, "layer_types": None}
    architecture = reader.fields["general.architecture"].contents()
    return AutoConfig.for_model("llama" if architecture == "llama" else family, **settings)


def convert(gguf: Path, folder: Path, dtype: torch.dtype = torch.bfloat16, base: str | Path | None = None) -> None:
    """Write config, weights and tokenizer into a folder, dequantized by transformers, without traces of that."""
    model = dequantized(gguf, dtype, base)
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(folder, safe_serialization=True)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
