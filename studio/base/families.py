"""The tensors of well-known plain decoders from config.json alone, by arithmetic.

Checked against transformers' own modules in tests/test_model.py. Any other family is built on the meta device by
worker/model_config.py, in a process of its own.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]

# Defaults of a family's class in transformers that config.json may leave out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": False},
    "granite": {"tie_word_embeddings": False},
    "olmo2": {"tie_word_embeddings": False},
    "phi3": {"tie_word_embeddings": False},
    "mistral": {"tie_word_embeddings": False, "num_key_value_heads": 8},
    "qwen3": {"tie_word_embeddings": False, "head_dim": 128},
    "smollm3": {"tie_word_embeddings": True, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256},
    "gemma": {
        "tie_word_embeddings": True,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "vocab_size": 256000,
    },
    "gemma2": {
        "tie_word_embeddings": True,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 256000,
        "num_hidden_layers": 26,
    },
    "gemma3_text": {
        "tie_word_embeddings": True,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
    },
    "gpt2": {"tie_word_embeddings": True},
    "gpt_bigcode": {"tie_word_embeddings": True},
}

SEPARATE = ("llama", "mistral", "qwen2", "qwen3", "granite", "smollm3", "gemma", "gemma2", "gemma3_text", "olmo2")
QUERY_BIAS = ("qwen2",)
HEAD_NORMS = ("qwen3", "gemma3_text")  # queries and keys are normed a head at a time
FOUR_NORMS = ("gemma2", "gemma3_text")

# model types whose experts peft means by the names of their old linears (its _MOE_TARGET_MODULE_MAPPING): a LoRA cannot
# name a dense or shared feed-forward there
EXPERTS_AS_W = frozenset(("minimax", "minimax_m2"))
EXPERTS_AS_PROJ = frozenset(
    (
        "UnlimitedOcrTextModel", "Dots3NoteTextModel", "afmoe", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3",
        "deepseek_v32", "dots1", "ernie4_5_moe", "exaone_moe", "flex_olmo", "glm4_moe", "glm4_moe_lite", "glm4v_moe",
        "glm_moe_dsa", "hunyuan_v1_moe", "longcat_flash", "mellum", "olmoe", "qwen3_moe", "qwen3_next",
        "qwen3_omni_moe", "qwen3_omni_moe_text", "qwen3_omni_moe_thinker", "solar_open"
    )
)  # fmt: skip
STATE_SPACE = frozenset(("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"))
# model types whose class in transformers takes no keys and values of earlier tokens
WITHOUT_CACHE = frozenset(("falcon_mamba", "mamba", "mamba2", "openai-gpt", "reformer", "rwkv", "xlstm"))
# model type -> linears that peft adapts wrongly: as if a block-diagonal one were whole; or under names that
# transformers' renaming of the shared experts makes unreadable for peft
MISREAD = {"deepseek_v4": ("o_a_proj", "wo_a"), "laguna": ("gate_proj", "up_proj", "down_proj")}


def not_for_lora(model_type: str) -> frozenset[str]:
    """Names of linears that peft's LoRA takes for something else in a model of this type, or refuses."""
    if model_type in EXPERTS_AS_PROJ:
        return frozenset(("gate", "gate_proj", "up_proj", "down_proj"))
    if model_type in EXPERTS_AS_W:
        return frozenset(("gate", "w1", "w2", "w3"))
    return frozenset(("out_proj",) if model_type in STATE_SPACE else MISREAD.get(model_type, ()))


PACKAGES = {"gemma3n": "timm"}  # model type -> what its class in transformers needs to be built

# model types of transformers that write no text from left to right, unless config.json says is_decoder
ENCODERS = frozenset(
    [
        "albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2",
        "distilbert", "electra", "ernie", "esm", "eurobert", "flaubert", "fnet", "funnel", "ibert", "layoutlm",
        "longformer", "megatron-bert", "mobilebert", "modernbert", "mpnet", "mra", "nomic_bert", "nystromformer",
        "rembert", "roberta", "roberta-prelayernorm", "roformer", "squeezebert", "xlm", "xlm-roberta",
        "xlm-roberta-xl", "xlnet", "xmod", "yoso"
    ]
)  # fmt: skip
ENCODER_DECODERS = frozenset(
    [
        "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "encoder-decoder", "fsmt", "led", "longt5",
        "m2m_100", "marian", "mbart", "mt5", "mvp", "nllb-moe", "pegasus", "pegasus_x", "plbart", "pix2struct",
        "prophetnet", "switch_transformers", "t5", "t5gemma", "t5gemma2", "udop", "umt5", "whisper"
    ]
)  # fmt: skip


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """A model's config; of one that reads more than text, with the settings of the text model inside it on top."""
    return {**config, **(config.get("text_config") or {})}


def rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """A text model's stretching of positions as its config writes it, under transformers 5's name or the one before."""
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    return rope if isinstance(rope, dict) else {}


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """A text model's config with its family's defaults."""
    given = {key: value for key, value in config.items() if value is not None}
    return config | DEFAULTS.get(str(config.get("model_type")), {}) | given


def why_no_decoder(config: dict[str, Any]) -> str:
    """Why a model of this config.json does not write a text from left to right, in words; "" where it does."""
    kind = config.get("model_type")
    if config.get("is_encoder_decoder") or kind in ENCODER_DECODERS:
        return "an encoder with a decoder, which answers apart from what it reads"
    if kind in ENCODERS and not config.get("is_decoder"):
        return "an encoder, which reads a text in both directions and writes none"
    if str(kind).endswith("_assistant"):
        return "a draft model, which reads the states of another model and writes nothing by itself"
    if kind == "blt":
        return "a model of bytes in patches, which has no one stack of layers"
    if kind and causal_types() and kind not in causal_types():
        if config.get("auto_map"):
            return "it needs Python code of its own (auto_map), which is never run here"
        return (
            "transformers has no causal language model of this type: it reads images or sound, is no decoder, or is new"
        )
    return ""


@lru_cache(maxsize=1)
def causal_types() -> frozenset[str]:
    """The model types of which the installed transformers has a causal language model; empty where it does not say.

    Read from its source: importing its auto classes loads torch.
    """
    spec = find_spec("transformers")
    files = [
        Path(folder, "models/auto/modeling_auto.py") for folder in (spec and spec.submodule_search_locations) or ()
    ]
    text = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    table = re.search(r"^MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict\((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    return frozenset(re.findall(r'\(\s*"([\w.-]+)",', table[1])) if table else frozenset()


def tensors(config: dict[str, Any]) -> Shapes | None:
    """Tensor name -> shape, in the model's order; None for an unknown family or experts. config: of `completed`."""
    kind = config.get("model_type")
    if kind in ("gpt2", "gpt_bigcode"):
        return _gpt2(config)
    if kind not in SEPARATE and kind != "phi3":
        return None
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for number in range(config["num_hidden_layers"]):
        layer = _phi3(config) if kind == "phi3" else _separate(config, kind)
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not completed(config)["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    return shapes


def _widths(config: dict[str, Any]) -> tuple[int, int, int]:
    """Widths of a head, of all queries, and of all keys."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return head_dim, heads * head_dim, (config.get("num_key_value_heads") or heads) * head_dim


def _separate(config: dict[str, Any], kind: str) -> Shapes:
    """A layer with q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim, query, keys = _widths(config)
    shapes: Shapes = {
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, query),
    }
    if kind in QUERY_BIAS or config.get("attention_bias"):
        shapes |= {
            "self_attn.q_proj.bias": (query,),
            "self_attn.k_proj.bias": (keys,),
            "self_attn.v_proj.bias": (keys,),
        }
    if config.get("attention_bias"):
        shapes["self_attn.o_proj.bias"] = (hidden,)
    if kind in HEAD_NORMS:
        shapes |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    if kind == "olmo2":
        shapes |= {"self_attn.q_norm.weight": (query,), "self_attn.k_norm.weight": (keys,)}
    shapes |= {
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config.get("mlp_bias"):
        shapes |= {"mlp.gate_proj.bias": (inner,), "mlp.up_proj.bias": (inner,), "mlp.down_proj.bias": (hidden,)}
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind == "olmo2":
        norms = ["post_attention_layernorm", "post_feedforward_layernorm"]
    if kind in FOUR_NORMS:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    return shapes | {f"{name}.weight": (hidden,) for name in norms}


def _phi3(config: dict[str, Any]) -> Shapes:
    """A layer with queries, keys and values in one matrix, gate and up in another."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    _, query, keys = _widths(config)
    return {
        "self_attn.o_proj.weight": (hidden, query),
        "self_attn.qkv_proj.weight": (query + 2 * keys, hidden),
        "mlp.gate_up_proj.weight": (2 * inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }


def _gpt2(config: dict[str, Any]) -> Shapes:
    """GPT-2 stores its linears as (in, out); GPT-BigCode as (out, in), with one head of keys for all queries."""
    big = config["model_type"] == "gpt_bigcode"
    wide, inner = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    shapes: Shapes = {
        "transformer.wte.weight": (config["vocab_size"], wide),
        "transformer.wpe.weight": (config["n_positions"], wide),
    }
    for number in range(config["n_layer"]):
        layer = f"transformer.h.{number}"
        fused = wide + 2 * wide // config["n_head"] if big else 3 * wide
        for name, shape in (
            ("attn.c_attn", (wide, fused)),
            ("attn.c_proj", (wide, wide)),
            ("mlp.c_fc", (wide, inner)),
            ("mlp.c_proj", (inner, wide)),
        ):
            shapes |= {f"{layer}.{name}.weight": shape[::-1] if big else shape, f"{layer}.{name}.bias": (shape[1],)}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{layer}.{name}.weight": (wide,), f"{layer}.{name}.bias": (wide,)}
    return shapes | {"transformer.ln_f.weight": (wide,), "transformer.ln_f.bias": (wide,)}
