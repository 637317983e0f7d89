"""The class that a folder's tokenizer_config.json names, where transformers 5 would build another tokenizer by it."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from studio.export import hf_files
from studio.export.proof import TEXTS
from studio.loading import LOADING_ERRORS


def write(source: Path, folder: Path, template: str) -> None:
    """Copy a tokenizer's files with a chat template, and correct the class that they name."""
    hf_files.copy_tokenizer(source, folder, template)
    correct(folder)


def correct(folder: Path) -> None:
    """Name the generic class where the one that is named gives other ids than tokenizer.json, or cannot be loaded."""
    file, tokenizer = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if not (file.is_file() and tokenizer.is_file()) or _loads_as_described(folder):
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    config["tokenizer_class"] = hf_files.OLD_CLASS
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")


def _loads_as_described(folder: Path) -> bool:
    exact = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [exact.encode(text, add_special_tokens=False).ids for text in TEXTS]
    try:
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, *LOADING_ERRORS):
        return False
    return [loaded.encode(text, add_special_tokens=False) for text in TEXTS] == expected
