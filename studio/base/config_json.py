"""What a config.json says of a decoder: its sizes, under whatever names its family gives them."""

from __future__ import annotations

from typing import Any

from studio.base import families, targets
from studio.base.tensors import HEAD, TOKENS, Tensor
from studio.errors import ModelError

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")  # as config.json may call them
DECODERS_ONLY = "Only decoder-only language models can be tuned here, such as Qwen/Qwen2.5-0.5B-Instruct."


def refuse_no_decoder(config: dict[str, Any]) -> None:
    """Raise ModelError for a config of another kind of model."""
    if why := families.why_no_decoder(config):
        raise ModelError(f"config.json describes a {config.get('model_type')} model: {why}.", DECODERS_ONLY, "model")


def fields(config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The fields of ModelFacts that a config says. A text model inside a bigger one (text_config) is found.

    Raises ModelError where a size is missing, or the weights have no head.
    """
    text = families.completed(families.text_config(config))

    def first(*keys: str, default: Any = None) -> Any:
        return next((text[key] for key in keys if text.get(key) is not None), default)

    hidden = first("hidden_size", "n_embd", "d_model")
    heads = first("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads")
    layers = first(*LAYER_COUNTS, default=_listed_layers(text))
    vocabulary = first("vocab_size")
    _refuse_unsaid(
        config, hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=layers, vocab_size=vocabulary
    )
    _refuse_headless(text, tensors)
    _refuse_other_layers(text, tensors)
    _refuse_other_rows(text, vocabulary, tensors)
    return {
        "architecture": (config.get("architectures") or ["?"])[0],
        "model_type": config.get("model_type", "?"),
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": first("num_key_value_heads", default=heads),
        "head_dim": first("head_dim", default=hidden // heads),
        "intermediate_size": _widest(first("intermediate_size", "n_inner", "ffn_dim", "d_ff", default=4 * hidden)),
        "vocab_size": vocabulary,
        "tie_word_embeddings": _is_tied(config if "text_config" in config else text, tensors),
        "max_position_embeddings": first("max_position_embeddings", "n_positions"),
        "dtype": str(first("dtype", "torch_dtype", default="float32")),
    }


def _refuse_other_layers(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise ModelError where the weights are those of more or fewer layers than config.json says.

    transformers leaves the others out without a word, or starts them at random. Layers behind the last that only
    predict ahead (DeepSeek's) count neither way.
    """
    counts = {count for key in (*LAYER_COUNTS, "num_layers_per_stack") if isinstance(count := config.get(key), int)}
    counts |= {count + (config.get("num_nextn_predict_layers") or 0) for count in counts}
    stored: dict[str, int] = {}
    for name in tensors:
        if (match := targets.LAYER.search(name)) and not targets.NOT_TEXT.search(name):
            stack = name[: match.start()]
            stored[stack] = max(stored.get(stack, 0), int(match[1]) + 1)
    if counts and stored and not counts & set(stored.values()):
        message = f"config.json says {min(counts)} layers, and the weight files hold {max(stored.values())}."
        hint = "Download the model again, config.json and weights from one place."
        raise ModelError(message, hint, "model")


def _refuse_other_rows(text: dict[str, Any], said: int, tensors: dict[str, Tensor]) -> None:
    """Raise ModelError where the embedding table has other rows than config.json says, or none for the padding.

    Families that call the table embed_tokens have torch make one with the padding's row; GPT-2 and its kin do not.
    """
    tables = {name: tensor.shape[0] for name, tensor in tensors.items() if TOKENS.search(name)}
    stored = next(iter(tables.values()), said)
    if text.get("model_type") in families.DEFAULTS and stored != said:
        message = f"config.json says vocab_size {said}, and the embedding table in the weight files has {stored} rows."
        hint = "Download the model again, config.json and weights from one place."
        raise ModelError(message, hint, "model")
    padding = text.get("pad_token_id")
    if isinstance(padding, int) and padding >= said and any("embed_tokens" in name for name in tables):
        raise ModelError(
            f"config.json says pad_token_id {padding} and vocab_size {said}: the padding has no row in the embedding "
            "table.",
            "Set pad_token_id in config.json to null, or to a token that has a row.",
            "model",
        )


def _is_tied(config: dict[str, Any], tensors: dict[str, Tensor]) -> bool:
    """Whether the head is the embedding's table: as the outermost config says, else where no head is stored."""
    tied = config.get("tie_word_embeddings")
    return not any(HEAD.search(name) for name in tensors) if tied is None else bool(tied)


def _listed_layers(text: dict[str, Any]) -> int | None:
    """The number of layers in a config that lists the kind of each instead, as Nemotron-H's does."""
    kinds = text.get("layers_block_type") or text.get("layer_types")
    return len(kinds) if isinstance(kinds, list) else None


def _widest(width: int | list[int]) -> int:
    """The width of a feed-forward, of the widest where a config lists one for each layer, as Gemma 3n's does."""
    return max(width) if isinstance(width, list) else width


def _refuse_unsaid(config: dict[str, Any], **sizes: Any) -> None:
    """Raise ModelError for a config.json without one of the sizes, by the name that most families give it."""
    unsaid = [name for name, size in sizes.items() if not isinstance(size, int)]
    if unsaid == ["num_attention_heads"]:
        raise ModelError(
            f"config.json describes a {config.get('model_type')} model, which has no attention heads: models without "
            "attention are not tuned here.",
            DECODERS_ONLY,
            "model",
        )
    if unsaid:
        raise ModelError(
            f"config.json of type {config.get('model_type')!r} does not say {', '.join(unsaid)}.",
            DECODERS_ONLY,
            "model",
        )


def _refuse_headless(text: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise ModelError for weights without a head to write with, such as a classifier's: it would start at random."""
    known = (
        text.get("model_type") in families.DEFAULTS
        and "text_config" not in text
        and not text.get("tie_word_embeddings")
    )
    whole = any(TOKENS.search(name) for name in tensors)  # not only some of its tensors
    if known and whole and not any(HEAD.search(name) for name in tensors):
        named = (text.get("architectures") or ["?"])[0]
        raise ModelError(
            f"The weights hold no language model head (lm_head), and config.json ties none to the embedding: "
            f"they are of a {named}.",
            "Take the language model that it was made from.",
            "model",
        )
