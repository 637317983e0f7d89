"""What a base is recognised by under a result: its weights, and the settings and tokenizer beside them.

Recorded in a run's plan and in its result's manifest, compared whenever the result is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from studio import model
from studio.base import generation, headers, shards, tokenizer_files
from studio.errors import ModelError

# settings in config.json that change no answer; its end tokens are compared with generation_config.json's
IGNORED = frozenset(
    [
        "transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "use_cache", "return_dict",
        "output_hidden_states", "output_attentions", "id2label", "label2id", "problem_type",
        "chunk_size_feed_forward", "initializer_range", "pad_token_id", "eos_token_id", "_attn_implementation",
        "attn_implementation", "_attn_implementation_autoset"
    ]
)  # fmt: skip
WEIGHTS = "weights"
SPECIAL = ("bos_token", "eos_token")  # of tokenizer_config.json: what templates write


def of(base: Path) -> dict[str, Any]:
    """The record of a base. Raises ModelError where its files are not whole."""
    file = base / "tokenizer.json"
    tokenizer = {"file": _file_hash(file), "parts": _parts(file)} if file.is_file() else {}
    return {"base_fingerprint": shards.fingerprint(base), "base_settings": {**_settings(base), "tokenizer": tokenizer}}


def difference(record: Mapping[str, Any], base: Path) -> str:
    """What differs in `base` from its record, a list in words; "" where nothing does.

    A record of an earlier version holds less; what it lacks is not compared.
    """
    known = record.get("base_fingerprint")
    if known and shards.fingerprint(base) != known:
        return WEIGHTS
    settings = record.get("base_settings")
    if not settings:
        return ""
    current = _settings(base)
    names = [
        *_changed_settings(settings["config"], current["config"]),
        *_changed("tokenizer_config.json", settings["special_tokens"], current["special_tokens"]),
    ]
    if settings["eos_token_id"] != current["eos_token_id"]:
        names.append(f"eos_token_id {settings['eos_token_id']} → {current['eos_token_id']}")
    return ", ".join([*names, *_changed_parts(settings["tokenizer"], base / "tokenizer.json")])


def _settings(base: Path) -> dict[str, Any]:
    special, config = tokenizer_files.special_tokens(base), model.facts(base).config
    ends = {*generation.end_ids(config), *generation.end_ids(generation.settings(base))}
    return {
        "config": config,
        "special_tokens": {key: special[key] for key in SPECIAL if key in special},
        "eos_token_id": sorted(ends),
    }


def _changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings whose values differ; what save_pretrained writes anew (defaults, other names of one value) does not."""
    if _answering(before) == _answering(now):
        return []
    try:
        before, now = headers.completed(before), headers.completed(now)
    except ModelError:  # a class that transformers does not bring
        pass
    return list(_changed("config.json", _answering(before), _answering(now)))


def _answering(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that change answers, those of models inside too."""
    return {
        key: _answering(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in IGNORED and value is not None
    }


def _changed(where: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changed(f"{where}: {key}", old, new)
        elif old != new:
            yield f"{where}: {key} {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _changed_parts(tokenizer: Mapping[str, Any], file: Path) -> list[str]:
    if not file.is_file():
        return ["tokenizer.json"] if tokenizer else []
    if tokenizer.get("file") == _file_hash(file):
        return []
    before, now = tokenizer.get("parts", {}), _parts(file)
    return [f"tokenizer.json: {part}" for part in sorted({*before, *now}) if before.get(part) != now.get(part)]


def _file_hash(file: Path) -> str:
    status = file.stat()
    return _cached_hash(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=32)
def _cached_hash(file: Path, size: int, mtime_ns: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:32]


def _parts(file: Path) -> dict[str, str]:
    """A hash of each part of a tokenizer that changes ids, as `tokenizers` writes it, whatever form the file has."""
    return _cached_parts(file, _file_hash(file))


@lru_cache(maxsize=32)
def _cached_parts(file: Path, content: str) -> dict[str, str]:
    from tokenizers import Tokenizer  # late: a compiled library that the page's first second does not need

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    parts = orjson.loads(tokenizer.to_str())
    parts["post_processor"] = tokenizer.encode("").ids  # what it puts around a text; it may be written in several ways
    return {
        name: hashlib.sha256(orjson.dumps(part, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
        for name, part in parts.items()
    }
