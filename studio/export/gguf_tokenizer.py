"""A tokenizer.json in llama.cpp's words: byte-level BPE by the name of its pattern, and sentencepiece's BPE with bytes to fall back on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from studio.errors import ExportError

UNKNOWN, NORMAL, CONTROL, USER, UNUSED, BYTE = 2, 1, 3, 4, 5, 6  # llama.cpp's token types
SPACE = "\u2581"  # sentencepiece's blank

# How text is cut before byte-level BPE: the patterns that llama.cpp knows, by its name for them.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASES = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s|\p{{N}}%s"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERNS = {
    _SPLIT % "{1,3}": "llama-bpe",
    _SPLIT % "": "qwen2",
    _CASES % ("", "", "") + _REST: "tekken",
    _CASES % (_SHORT, _SHORT, "{1,3}") + _REST: "gpt-4o",
}


class Vocabulary(NamedTuple):
    """What a GGUF says of a tokenizer. model: gpt2 (byte-level) or llama (sentencepiece)."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    space_prefix: bool


def pre(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name for how a tokenizer.json cuts text before byte-level BPE; None where it has none that is known here."""
    steps = tokenizer.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    if kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        return PATTERNS.get((steps[0].get("pattern") or {}).get("Regex"))
    if not steps[-1].get("use_regex", True):
        return None
    digits = kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits")
    return "smollm" if digits else "gpt-2" if kinds == ["ByteLevel"] else None


def space_prefix(tokenizer: dict[str, Any]) -> bool | None:
    """Whether a sentencepiece tokenizer puts a blank before a text; None where it does what llama.cpp cannot."""
    normalizer, cut = tokenizer.get("normalizer") or {}, tokenizer.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    kinds = [step.get("type") for step in steps]
    blanks = [step for step in steps if step.get("type") == "Replace"]
    if any(step.get("pattern") != {"String": " "} or step.get("content") != SPACE for step in blanks):
        return None
    if kinds == ["Prepend", "Replace"] and steps[0].get("prepend") == SPACE and not cut:
        return True
    if kinds == ["Replace"] and (not cut or cut.get("type") == "Split" and cut.get("pattern") == {"String": " "}):
        return False
    if not kinds and cut.get("type") == "Metaspace" and not cut.get("split", True):
        return (
            cut.get("prepend_scheme", "always") == "always"
        )  # "first": a chat begins with a special token, so no blank is put there
    return None


def refuse(tokenizer: dict[str, Any]) -> None:
    """Raise ExportError for a tokenizer that llama.cpp would read otherwise."""
    model = tokenizer["model"]
    known = model.get("type") == "BPE" and (
        _whole(model) and space_prefix(tokenizer) is not None
        if model.get("byte_fallback")
        else pre(tokenizer) is not None
    )
    if not known:
        raise ExportError(
            "GGUF export writes BPE tokenizers that cut text as GPT-2's, SmolLM's, Llama 3's, Qwen's, Mistral's, GPT-4o's or sentencepiece's; "
            "this one is another.",
            "Export it merged; llama.cpp's convert_hf_to_gguf.py reads that folder.",
            "model",
        )


def _pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    return [tuple(pair.split(" ", 1)) if isinstance(pair, str) else (pair[0], pair[1]) for pair in model["merges"]]


def _whole(model: dict[str, Any]) -> bool:
    """Whether every two pieces that make a third are merged: llama.cpp joins by the vocabulary, not by a list of merges."""
    vocabulary, pairs = model["vocab"], set(_pairs(model))
    made = {left + right for left, right in pairs}
    possible = sum(word[:at] in vocabulary and word[at:] in vocabulary for word in made for at in range(1, len(word)))
    return possible == len(pairs)


def vocabulary(tokenizer: dict[str, Any], size: int) -> Vocabulary:
    """All tokens up to `size`, the rows of the embedding; rows without a token are told unused."""
    model = tokenizer["model"]
    tokens, types = [f"[PAD{place}]" for place in range(size)], [UNUSED] * size
    for token, place in model["vocab"].items():
        tokens[place], types[place] = token, NORMAL
    added = tokenizer.get("added_tokens", [])
    if not model.get("byte_fallback"):
        _add(added, tokens, types)
        return Vocabulary(
            "gpt2", pre(tokenizer) or "", tokens, types, [" ".join(pair) for pair in _pairs(model)], [], False
        )
    ranks = {left + right: -float(rank) for rank, (left, right) in reversed(list(enumerate(_pairs(model))))}
    scores = [ranks.get(token, -1e6) for token in tokens]
    for place, token in enumerate(tokens):
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            types[place] = BYTE
        elif token == model.get("unk_token"):
            types[place] = UNKNOWN
    unknown = {place for place, kind in enumerate(types) if kind == UNKNOWN}
    _add([one for one in added if one["id"] not in unknown], tokens, types)
    return Vocabulary("llama", "default", tokens, types, [], scores, bool(space_prefix(tokenizer)))


def _add(added: Iterable[dict[str, Any]], tokens: list[str], types: list[int]) -> None:
    for one in added:
        tokens[one["id"]], types[one["id"]] = one["content"], CONTROL if one.get("special") else USER
