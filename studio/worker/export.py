"""python -m studio.worker.export WHAT MODEL OUT: the part of an export that needs torch. WHAT: merged-own, -f16 or -f32; f16 or q8_0 (GGUF)."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer

from studio import device, model
from studio.errors import StudioError
from studio.talk.voice import Voice, voice
from studio.worker import gguf_file, rounding
from studio.worker.merge import merge
from studio.worker.speakers import end_tokens

TYPES = {"f16": torch.float16, "f32": torch.float32}


def merged(found: Voice, out: Path, precision: str = "own") -> None:
    """A folder that transformers, vLLM and their like load: weights in the base's precision (own) or another, tokenizer, template, stop tokens."""
    out.mkdir(parents=True, exist_ok=True)
    source = found.result if found.whole and not found.checkpoint else found.base
    facts = model.facts(source)
    dtype = TYPES.get(precision) or getattr(torch, facts.dtype if facts.dtype in ("bfloat16", "float16", "float32") else "bfloat16")
    merge(found, out, dtype, rounding.rounded(found, rounding.Sixteen, tell) if dtype == torch.bfloat16 and changed(found) else {})
    config = AutoConfig.from_pretrained(source)
    config.dtype = dtype
    config.__dict__.pop("quantization_config", None)
    config.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(found.base)
    tokenizer.chat_template = gguf_file.plain_template(found.template.text)
    tokenizer.save_pretrained(out)
    _generation(found, out)


def changed(found: Voice) -> bool:
    """Whether the weights are not simply those that lie in files already."""
    return found.result is not None and (not found.whole or found.checkpoint)


def tell(done: int, total: int) -> None:
    """Progress, for the process that waits."""
    print(f"{done}/{total}", flush=True)


def _generation(found: Voice, out: Path) -> None:
    """generation_config.json with every token that ends a turn: what programs stop at."""
    file = found.base / "generation_config.json"
    settings = json.loads(file.read_text()) if file.is_file() else {}
    ends = sorted(end_tokens(found))
    settings["eos_token_id"] = ends if len(ends) != 1 else ends[0]
    (out / "generation_config.json").write_text(json.dumps(settings, indent=1))


def main(what: str, name: str, out: Path) -> int:
    torch.set_num_threads(device.cores())
    tempfile.tempdir = str(out.parent)  # where the room for it has been looked at
    try:
        found = voice(name)
        if what.startswith("merged"):
            merged(found, out, what.removeprefix("merged-"))
        else:
            gguf_file.refuse(model.facts(found.base), found.base)
            prepared = rounding.rounded(found, rounding.Eight, tell) if what == "q8_0" else {}
            gguf_file.write(found, out, what, gguf_file.plain_template(found.template.text), prepared)
    except StudioError as error:
        print(json.dumps({"error": error.as_dict()}))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
