"""The files beside a model's weights, as transformers 4 and 5, vLLM and llama.cpp read them: config, generation config, tokenizer, template.

What the base brings is copied as it is; changed is only what the trained model does otherwise, and what transformers 5 writes in words that
transformers 4 does not know.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studio.new_tokens import FILES

NEW_CLASS, OLD_CLASS = (
    "TokenizersBackend",
    "PreTrainedTokenizerFast",
)  # one class: its name in transformers 5, and the name both versions know


def copy_tokenizer(source: Path, out: Path, template: str) -> None:
    """The tokenizer's files of a model folder into `out`, unchanged, and the chat template that was trained with."""
    for file in sorted({file for pattern in FILES for file in source.glob(pattern)}):
        shutil.copyfile(file, out / file.name)
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    file = out / "tokenizer_config.json"
    if not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    before = dict(config)
    if (
        "chat_template" in config
    ):  # older readers look here first: no other template than the trained one may stand here
        config["chat_template"] = template
    if config.get("tokenizer_class") == NEW_CLASS:
        config["tokenizer_class"] = OLD_CLASS
    if config != before:
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")


def plain_template(text: str) -> str:
    """A template without the {% generation %} tags, which only trainers know; the blanks around them stay as they were."""
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
    """config.json of the base with what the merged weights are: their type, whether head and embedding are one, rows, tokens that end a turn."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    config.pop("_name_or_path", None)
    config["dtype"] = config["torch_dtype"] = dtype
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    for one in (config, inner):
        if tied is not None:
            one["tie_word_embeddings"] = tied
        if one is inner and vocabulary is not None:
            one["vocab_size"] = vocabulary
        if one.get("dtype") or one.get("torch_dtype"):
            one["dtype"] = one["torch_dtype"] = dtype
        one.update(legacy_rope(one))
    if ends:
        config["eos_token_id"] = one_or_many(ends)
    (out / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")


def write_generation_config(source: Path, out: Path, ends: Iterable[int]) -> None:
    """generation_config.json: the base's, with every token that ends a turn, the trained one first."""
    file = source / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if ends:
        settings["eos_token_id"] = one_or_many(ends)
    (out / "generation_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def one_or_many(ids: Iterable[int]) -> int | list[int]:
    ids = list(ids)
    return ids if len(ids) != 1 else ids[0]


def legacy_rope(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers 4 reads (rope_theta, rope_scaling, rope_local_base_freq) of a config with transformers 5's rope_parameters only."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" in config or "rope_scaling" in config:
        return {}
    if "full_attention" in rope:  # one set for each kind of layer
        local = (rope.get("sliding_attention") or {}).get("rope_theta")
        return _legacy(rope["full_attention"] or {}) | ({"rope_local_base_freq": local} if local else {})
    return _legacy(rope)


def _legacy(rope: dict[str, Any]) -> dict[str, Any]:
    outside = {
        key: rope[key]
        for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
        if key in rope
    }
    kind = rope.get("rope_type", "default")
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
