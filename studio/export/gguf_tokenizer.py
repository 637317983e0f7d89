"""Convert a tokenizer.json to llama.cpp's terms: byte-level BPE by the name of its pattern, or sentencepiece's BPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from studio.errors import ExportError

UNKNOWN, NORMAL, CONTROL, USER, UNUSED, BYTE = 2, 1, 3, 4, 5, 6  # llama.cpp's token types
SPACE = "\u2581"  # sentencepiece's blank

# the pre-tokenizer patterns that llama.cpp knows, and its names for them
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
TAKEN_WHOLE = ("llama-bpe", "tekken")  # whose words llama.cpp does not merge where they are tokens


class Vocabulary(NamedTuple):
    """A tokenizer as a GGUF file stores it. model: gpt2 (byte-level) or llama (sentencepiece)."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    space_prefix: bool


def _normalizers(tokenizer: dict[str, Any]) -> set[str]:
    normalizer = tokenizer.get("normalizer") or {}
    return {step.get("type") for step in normalizer.get("normalizers", [normalizer] if normalizer else [])}


def composes(tokenizer: dict[str, Any]) -> bool:
    """Whether letters and accents that stand apart are one character to a byte-level tokenizer, as Qwen's has it."""
    return "NFC" in _normalizers(tokenizer)


def cut_otherwise(tokenizer: dict[str, Any]) -> str:
    """A word that llama.cpp gives other tokens than this tokenizer does, or "" where none is known.

    Some byte-level tokenizers take a word that is a token whole, others merge its letters; llama.cpp goes by the
    pattern. And it finds an added token inside words too.
    """
    from tokenizers import models  # late, as in tokens.py

    model, added = tokenizer["model"], tokenizer.get("added_tokens", [])
    inside = next((token["content"] for token in added if token.get("single_word")), "")
    if inside or model.get("byte_fallback") or bool(model.get("ignore_merges")) == (pre(tokenizer) in TAKEN_WHOLE):
        return inside
    merging = models.BPE(model["vocab"], _pairs(model))
    words = model["vocab"].keys() - {token["content"] for token in added}
    return next((word for word in sorted(words) if [part.value for part in merging.tokenize(word)] != [word]), "")


def pre(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name for the pre-tokenizer of a byte-level BPE, or None where none is known."""
    model = tokenizer["model"]
    if _normalizers(tokenizer) - {"NFC"} or model.get("end_of_word_suffix") or model.get("continuing_subword_prefix"):
        return None  # llama.cpp changes no text before it cuts it
    steps = tokenizer.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    if kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        return PATTERNS.get((steps[0].get("pattern") or {}).get("Regex"))
    if not steps[-1].get("use_regex", True):
        return None
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    return "gpt-2" if kinds == ["ByteLevel"] else None


def space_prefix(tokenizer: dict[str, Any]) -> bool | None:
    """Whether a sentencepiece tokenizer puts a blank before a text; None where it does something llama.cpp does not."""
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
        # "first": a chat begins with a special token, so it gets no blank
        return cut.get("prepend_scheme", "always") == "always"
    return None


def refuse(tokenizer: dict[str, Any]) -> None:
    """Raise ExportError for a tokenizer that llama.cpp would apply differently."""
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        known = False
    elif model.get("byte_fallback"):
        known = _merges_complete(model) and space_prefix(tokenizer) is not None
    else:
        known = pre(tokenizer) is not None
    if not known:
        raise ExportError(
            "GGUF export writes BPE tokenizers that cut text as GPT-2's, SmolLM's, Llama 3's, Qwen's, Mistral's, "
            "GPT-4o's or sentencepiece's; this one is another.",
            "Export it merged; llama.cpp's convert_hf_to_gguf.py reads that folder.",
            "model",
        )


def _pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    return [tuple(pair.split(" ", 1)) if isinstance(pair, str) else (pair[0], pair[1]) for pair in model["merges"]]


def _merges_complete(model: dict[str, Any]) -> bool:
    """Whether any two tokens that form a third are a merge: llama.cpp merges by the vocabulary, not by a list."""
    vocabulary, pairs = model["vocab"], set(_pairs(model))
    merged = {left + right for left, right in pairs}
    splits = ((token[:at], token[at:]) for token in merged for at in range(1, len(token)))
    return sum(left in vocabulary and right in vocabulary for left, right in splits) == len(pairs)


def vocabulary(tokenizer: dict[str, Any], added: Mapping[int, Any], size: int) -> Vocabulary:
    """The tokens of all `size` rows of the embedding; rows without a token are marked unused, others left out.

    added: the added tokens by their ids, as tokenizers reads them.
    """
    model = tokenizer["model"]
    tokens, types = [f"[PAD{token_id}]" for token_id in range(size)], [UNUSED] * size
    for token, token_id in model["vocab"].items():
        if token_id < size:
            tokens[token_id], types[token_id] = token, NORMAL
    added = {token_id: token for token_id, token in added.items() if token_id < size}
    if not model.get("byte_fallback"):
        _add(added, tokens, types)
        return Vocabulary(
            "gpt2", pre(tokenizer) or "", tokens, types, [" ".join(pair) for pair in _pairs(model)], [], False
        )
    ranks = {left + right: -float(rank) for rank, (left, right) in reversed(list(enumerate(_pairs(model))))}
    scores = [ranks.get(token, -1e6) for token in tokens]
    for token_id, token in enumerate(tokens):
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            types[token_id] = BYTE
        elif token == model.get("unk_token"):
            types[token_id] = UNKNOWN
    _add({token_id: token for token_id, token in added.items() if types[token_id] != UNKNOWN}, tokens, types)
    return Vocabulary("llama", "default", tokens, types, [], scores, bool(space_prefix(tokenizer)))


def _add(added: Mapping[int, Any], tokens: list[str], types: list[int]) -> None:
    for token_id, token in added.items():
        tokens[token_id], types[token_id] = token.content, CONTROL if token.special else USER
