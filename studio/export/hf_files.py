"""The files beside a model's weights that transformers 4 and 5, vLLM and llama.cpp read.

Config, generation config, tokenizer and template are the base's. Only what training changed differs, and what
transformers 5 writes in a form that transformers 4 does not read.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studio.base import generation
from studio.new_tokens import FILES

NEW_CLASS = "TokenizersBackend"  # the generic tokenizer class in transformers 5
KNOWN_ROPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")  # in transformers 4
OLD_CLASS = "PreTrainedTokenizerFast"  # its name in both versions


def copy_tokenizer(source: Path, out: Path, template: str) -> None:
    """Copy a model folder's tokenizer files to `out`, with the chat template of the training."""
    for file in sorted({file for pattern in FILES for file in source.glob(pattern)}):
        shutil.copyfile(file, out / file.name)
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    file = out / "tokenizer_config.json"
    if not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    before = dict(config)
    if "chat_template" in config:  # where older readers look first
        config["chat_template"] = template
    if config.get("tokenizer_class") == NEW_CLASS:
        config["tokenizer_class"] = OLD_CLASS
    if config != before:
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")


def plain_template(text: str) -> str:
    """Replace the {% generation %} tags, which only trainers read; the blanks around them stay."""
    text = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", text)
    return re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", text)


def write_config(
    source: Path,
    out: Path,
    *,
    dtype: str,
    tied: bool | None = None,
    vocabulary: int | None = None,
    ends: Iterable[int] = (),
) -> None:
    """Write the base's config.json with the merged weights' dtype, tying, vocabulary size and end tokens."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    config.pop("_name_or_path", None)
    config["dtype"] = config["torch_dtype"] = dtype
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    if vocabulary is not None:
        inner["vocab_size"] = vocabulary
    for section in (config, inner):
        if tied is not None:
            section["tie_word_embeddings"] = tied
        if section.get("dtype") or section.get("torch_dtype"):
            section["dtype"] = section["torch_dtype"] = dtype
        section.update(legacy_rope(section))
    if ends:
        config["eos_token_id"] = int_or_list(ends)
    (out / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")


def write_generation_config(source: Path, out: Path, ends: Iterable[int]) -> None:
    """Write the base's generation_config.json with all end tokens, the trained one first."""
    settings = generation.settings(source)
    if ends:
        settings["eos_token_id"] = int_or_list(ends)
    (out / generation.FILE).write_text(json.dumps(settings, indent=1), encoding="utf-8")


def sampling(base: Path) -> dict[str, float]:
    """The sampling that the base's generation_config.json advises, under transformers' names; {} where none."""
    settings = generation.settings(base)
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty") if settings.get("do_sample") else ()
    return {name: settings[name] for name in names if isinstance(settings.get(name), (int, float))}


def int_or_list(ids: Iterable[int]) -> int | list[int]:
    ids = list(ids)
    return ids if len(ids) != 1 else ids[0]


def legacy_rope(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that transformers 4 reads (rope_theta, rope_scaling, …) for transformers 5's rope_parameters."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" in config or "rope_scaling" in config:
        return {}
    if "full_attention" in rope:  # one set for each kind of layer
        local = (rope.get("sliding_attention") or {}).get("rope_theta")
        outer = _legacy(rope["full_attention"] or {})
        return outer | ({"rope_local_base_freq": local} if outer and local else {})
    return _legacy(rope)


def _legacy(rope: dict[str, Any]) -> dict[str, Any]:
    outside = {
        key: rope[key]
        for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
        if key in rope
    }
    kind = rope.get("rope_type", "default")
    if kind not in KNOWN_ROPES:
        return {}
    if kind == "default":
        return {key: value for key, value in outside.items() if key != "original_max_position_embeddings"}
    if kind == "longrope":  # transformers 4 takes three fields for Phi-3 and no more
        return outside | {
            "rope_scaling": {"type": kind, "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
        }
    return outside | {
        "rope_scaling": {
            key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")
        }
    }
