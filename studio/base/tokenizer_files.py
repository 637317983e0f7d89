"""What a model's own files say about its texts: its chat template, its special tokens, its vocabulary."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from studio import json_text
from studio.errors import reading_model_file


def added_bos(model_folder: str | Path | None) -> str:
    """The token that the post-processor in tokenizer.json puts before every text; "" for none."""
    file = Path(model_folder, "tokenizer.json") if model_folder is not None else None
    if file is None or not file.is_file():
        return ""
    stat = file.stat()
    return _added_bos(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _added_bos(file: Path, mtime_ns: int, size: int) -> str:
    try:
        tokenizer: dict[str, Any] = orjson.loads(file.read_bytes())
    except (OSError, ValueError):
        return ""
    post_processor: dict[str, Any] = tokenizer.get("post_processor") or {}
    for step in post_processor.get("processors") or [post_processor]:
        kind = step.get("type")
        if kind in ("BertProcessing", "RobertaProcessing"):
            return str(step["cls"][0])
        if kind == "TemplateProcessing":
            single: list[dict[str, Any]] = step.get("single") or [{}]
            first = single[0].get("SpecialToken")
            if first:
                special: dict[str, Any] = step.get("special_tokens") or {}
                tokens: dict[str, Any] = special.get(first["id"]) or {}
                return str(next(iter(tokens.get("tokens") or []), first["id"]))
    return ""


@lru_cache(maxsize=8)
def vocabulary(file: Path, mtime_ns: int) -> frozenset[str]:
    """Every token of a tokenizer.json, added ones included."""
    tokenizer = _json(file)
    vocab = (tokenizer.get("model") or {}).get("vocab") or {}
    tokens = vocab if isinstance(vocab, dict) else (token for token, *_ in vocab)  # Unigram: [token, score]
    return frozenset(tokens) | {token["content"] for token in tokenizer.get("added_tokens") or ()}


def model_template(model_folder: str | Path | None) -> str | None:
    """The chat template among a model's files: chat_template.jinja, else in tokenizer_config.json."""
    if model_folder is None:
        return None
    folder = Path(model_folder)
    own = folder / "chat_template.jinja"
    if own.is_file():
        with reading_model_file(own):
            return own.read_text(encoding="utf-8")
    found = _json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default") or next(iter(named.values()), None)
    return found if isinstance(found, str) and found.strip() else None


def special_tokens(model_folder: str | Path | None) -> dict[str, str]:
    """bos_token, eos_token and their like, as transformers passes them to a template. Without a model: Llama's."""
    if model_folder is None:
        return {"bos_token": "<s>", "eos_token": "</s>"}
    folder, found = Path(model_folder), {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in _json(folder / file).items():
            if key.endswith("_token") and not key.startswith("add_"):
                text = value.get("content") if isinstance(value, dict) else value
                if isinstance(text, str):
                    found[key] = text
    return found


def _json(path: Path) -> dict[str, Any]:
    """A JSON object among a model's files, {} where there is none. Raises ModelError for a damaged one."""
    if not path.is_file():
        return {}
    with reading_model_file(path):
        return dict(json_text.read(path.read_text(encoding="utf-8"), path.name))
