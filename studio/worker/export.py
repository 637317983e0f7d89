"""python -m studio.worker.export FORMAT MODEL OUT: the part of an export that needs torch.

FORMAT: merged-own, merged-f16 or merged-f32; for a GGUF file f16, q8_0, q4_k_m, …, with +imatrix to weigh columns.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from studio import device, model
from studio.errors import ExportError, StudioError, as_studio_error
from studio.export import hf_files
from studio.export.proof import TEXTS
from studio.runs.checkpoints import disk_is_full
from studio.talk.reference import ModelReference, resolve
from studio.talk.stopping import end_tokens
from studio.worker import gguf_file
from studio.worker.importance import importance
from studio.worker.merge import base_dtype, merge, still_tied

TABLE = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embed_in)\.weight$")
FULL = ExportError(
    "The disk is full: the export could not be written.", "Free some space, or give a path on another disk.", "OUT"
)
TYPES = {"f16": torch.float16, "f32": torch.float32}


def merged(reference: ModelReference, out: Path, precision: str = "own") -> None:
    """Write a folder for transformers and vLLM: merged weights, tokenizer, template. precision: own, f16 or f32."""
    out.mkdir(parents=True, exist_ok=True)
    dtype = TYPES.get(precision) or base_dtype(reference)
    shapes = merge(reference, out, dtype, model.facts(reference.base).exact if precision == "own" else ())
    rows = {shape[0] for name, shape in shapes.items() if TABLE.search(name)} - {model.facts(reference.base).vocab_size}
    ends = end_tokens(reference)
    hf_files.write_config(
        reference.base,
        out,
        dtype=str(dtype).removeprefix("torch."),
        tied=still_tied(reference.base, shapes),
        vocabulary=max(rows, default=None),
        ends=ends,
    )
    hf_files.write_generation_config(reference.base, out, ends)
    hf_files.copy_tokenizer(reference.tokenizer, out, hf_files.plain_template(reference.template.text))
    _fix_tokenizer_class(out)


def _fix_tokenizer_class(folder: Path) -> None:
    """Name the generic tokenizer class where transformers 5 builds another tokenizer than tokenizer.json describes."""
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    loaded = AutoTokenizer.from_pretrained(folder)
    if [loaded.encode(text, add_special_tokens=False) for text in TEXTS] != expected:
        config = json.loads(file.read_text(encoding="utf-8"))
        config["tokenizer_class"] = hf_files.OLD_CLASS
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")


def main(what: str, name: str, out: Path) -> int:
    torch.set_num_threads(device.cores())
    before, tempfile.tempdir = tempfile.tempdir, str(out.parent)  # the disk whose room was checked
    try:
        reference = resolve(name)
        if what.startswith("merged"):
            merged(reference, out, what.removeprefix("merged-"))
        else:
            kind, _, imatrix = what.partition("+")
            template = hf_files.plain_template(reference.template.text)
            gguf_file.write(reference, out, kind, template, importance(reference) if imatrix else None)
    except StudioError as error:
        return refused(error)
    except (OSError, RuntimeError, SafetensorError, MemoryError) as error:
        known = FULL if disk_is_full(error) else as_studio_error(error)
        if known is None:
            raise
        return refused(known)
    finally:
        tempfile.tempdir = before
    return 0


def refused(error: StudioError) -> int:
    print(json.dumps({"error": error.as_dict()}))
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
