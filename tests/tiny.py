"""A tiny random Llama with a real tokenizer and a ChatML template, written without torch, in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = [
    "What is the capital of France? The capital of France is Paris.",
    "Write one line about the sea. The sea is wide and blue.",
    "user assistant system You are a helpful assistant. Answer in short words, please: yes or no.",
]


def tokenizer() -> Tokenizer:
    """Byte-level BPE: every text can be encoded and comes back as it was."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return made


def write(
    folder: Path,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    intermediate: int = 64,
    seed: int = 0,
) -> Path:
    """A model folder as save_pretrained writes it: config.json, model.safetensors (float32), tokenizer and chat
    template.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer()
    vocabulary, width, kv = words.get_vocab_size(), hidden, hidden // heads * kv_heads
    random = numpy.random.default_rng(seed)

    def weight(*shape: int) -> numpy.ndarray:
        return (random.standard_normal(shape) * 0.05).astype(numpy.float32)

    tensors = {
        "model.embed_tokens.weight": weight(vocabulary, hidden),
        "model.norm.weight": numpy.ones(hidden, numpy.float32),
    }
    for layer in range(layers):
        here = f"model.layers.{layer}."
        tensors |= {
            here + "self_attn.q_proj.weight": weight(width, hidden),
            here + "self_attn.k_proj.weight": weight(kv, hidden),
            here + "self_attn.v_proj.weight": weight(kv, hidden),
            here + "self_attn.o_proj.weight": weight(hidden, width),
            here + "mlp.gate_proj.weight": weight(intermediate, hidden),
            here + "mlp.up_proj.weight": weight(intermediate, hidden),
            here + "mlp.down_proj.weight": weight(hidden, intermediate),
            here + "input_layernorm.weight": numpy.ones(hidden, numpy.float32),
            here + "post_attention_layernorm.weight": numpy.ones(hidden, numpy.float32),
        }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_size": hidden,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": kv_heads,
                "head_dim": hidden // heads,
                "intermediate_size": intermediate,
                "vocab_size": vocabulary,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
                "rms_norm_eps": 1e-5,
                "hidden_act": "silu",
                "dtype": "float32",
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
            }
        )
    )
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|im_start|>",
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "model_max_length": 512,
            }
        )
    )
    (folder / "chat_template.jinja").write_text(CHATML)
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    )
    return folder
