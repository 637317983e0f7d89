"""python -m studio.worker.export WHAT MODEL OUT: the part of an export that needs torch. WHAT: merged-own, -f16 or -f32; of a GGUF f16, q8_0, q4_k_m, …, with
+imatrix behind it where columns are weighed."""

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
from studio.worker.merge import merge, own_type, still_tied

TABLE = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embed_in)\.weight$")
FULL = ExportError(
    "The disk is full: the export could not be written.", "Free some space, or give a path on another disk.", "OUT"
)
TYPES = {"f16": torch.float16, "f32": torch.float32}


def merged(found: ModelReference, out: Path, precision: str = "own") -> None:
    """A folder that transformers, vLLM and their like load: weights in the base's precision (own) or another, tokenizer, template, stop tokens."""
    out.mkdir(parents=True, exist_ok=True)
    dtype = TYPES.get(precision) or own_type(found)
    shapes = merge(found, out, dtype)
    rows = {shape[0] for name, shape in shapes.items() if TABLE.search(name)} - {model.facts(found.base).vocabulary}
    ends = end_tokens(found)
    hf_files.write_config(
        found.base,
        out,
        dtype=str(dtype).removeprefix("torch."),
        tied=still_tied(found.base, shapes),
        vocabulary=max(rows, default=None),
        ends=ends,
    )
    hf_files.write_generation_config(found.base, out, ends)
    hf_files.copy_tokenizer(found.tokenizer, out, hf_files.plain_template(found.template.text))
    _read_as_it_is(out)


def _read_as_it_is(folder: Path) -> None:
    """Name the class that takes tokenizer.json as it is, where the one named builds another tokenizer from its parts: transformers 5 does so."""
    encoder, file = Tokenizer.from_file(str(folder / "tokenizer.json")), folder / "tokenizer_config.json"
    wanted = [encoder.encode(text, add_special_tokens=False).ids for text in TEXTS]
    if (
        file.is_file()
        and [AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False) for text in TEXTS] != wanted
    ):
        config = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(
            json.dumps({**config, "tokenizer_class": hf_files.OLD_CLASS}, indent=2, ensure_ascii=False),
            encoding="utf-8",
        )


def main(what: str, name: str, out: Path) -> int:
    torch.set_num_threads(device.cores())
    tempfile.tempdir = str(out.parent)  # where the room for it has been looked at
    try:
        found = resolve(name)
        if what.startswith("merged"):
            merged(found, out, what.removeprefix("merged-"))
        else:
            kind, _, weighed = what.partition("+")
            gguf_file.write(
                found, out, kind, hf_files.plain_template(found.template.text), importance(found) if weighed else None
            )
    except StudioError as error:
        return refused(error)
    except (OSError, RuntimeError, SafetensorError, MemoryError) as error:
        spoken = FULL if disk_is_full(error) else as_studio_error(error)
        if spoken is None:
            raise
        return refused(spoken)
    return 0


def refused(error: StudioError) -> int:
    print(json.dumps({"error": error.as_dict()}))
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
