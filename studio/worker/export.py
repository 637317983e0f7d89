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

from studio import device, model
from studio.errors import ExportError, StudioError, as_studio_error
from studio.export import hf_files
from studio.runs.checkpoints import disk_is_full
from studio.talk.reference import ModelReference, resolve
from studio.talk.stopping import end_tokens
from studio.worker import gguf_file, tokenizer_class
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
    rows = {shape[0] for name, shape in shapes.items() if TABLE.search(name)} - {model.facts(reference.base).rows}
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
    tokenizer_class.write(reference.tokenizer, out, hf_files.plain_template(reference.template.text))


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
