"""A model of random weights in a real model's shape (bench/models.json), with a tokenizer and rows made here: no network needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from studio.home import PROJECT

SHAPES = PROJECT / "studio" / "bench" / "models.json"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = (
    "What is the capital of France? The capital of France is Paris.",
    "Write one line about the sea. The sea is wide and blue.",
    "Count from one number to another, as far as you like, and answer in short words.",
)


def write(folder: Path, name: str, dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Path:
    """The model `name` of models.json, some of its config's values changed, as save_pretrained writes it. The same numbers every time."""
    told = {**json.loads(SHAPES.read_text())[name], **changes, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    kind = told.pop("model_type")
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **{key: value for key, value in told.items() if key != "dtype"}), dtype=dtype
    )
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of a few hundred tokens: every text can be encoded and comes back as it was."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=384,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[0], chat_template=CHATML
    )


def rows(file: Path, count: int, words: int, alike: bool = False) -> Path:
    """Alpaca rows of up to `words` numbers to count through; alike: all equally long."""
    long = [words if alike else 1 + (7 * n + 3) % words for n in range(count)]
    file.write_text(
        json.dumps(
            [
                {
                    "instruction": f"Count on from {n}.",
                    "input": "",
                    "output": " ".join(str(n + step) for step in range(length)),
                }
                for n, length in enumerate(long)
            ]
        )
    )
    return file
