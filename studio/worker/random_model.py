"""Models of random weights in a real model's shape (memory/models.json), with tokenizer and rows, off line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from studio.home import PROJECT

SHAPES = PROJECT / "studio" / "memory" / "models.json"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROWS: dict[str, Callable[[str, str, int], dict[str, Any]]] = {  # of a prompt, its answer and the row's number
    "answers": lambda prompt, answer, n: {"instruction": prompt, "output": answer},
    "prompts": lambda prompt, answer, n: {"instruction": prompt, "output": answer},
    "pairs": lambda prompt, answer, n: {"prompt": prompt, "chosen": answer, "rejected": answer[::-1] + "."},
    "verdicts": lambda prompt, answer, n: {"prompt": prompt, "completion": answer, "label": n % 2 == 0},
}
TEXTS = (
    "What is the capital of France? The capital of France is Paris.",
    "Write one line about the sea. The sea is wide and blue.",
    "Count from one number to another, as far as you like, and answer in short words.",
)


def write(folder: Path, name: str, dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Path:
    """Save the model `name` of models.json with changes to its config; the weights are the same every time."""
    shape = json.loads(SHAPES.read_text())[name]
    settings = {**shape, **changes, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    settings.pop("dtype", None)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few hundred tokens that encodes any text without loss."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=384,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[0], chat_template=CHATML
    )


def rows(file: Path, count: int, words: int, alike: bool = False, examples: str = "answers") -> Path:
    """Write rows that count up to `words` numbers, as a stage that learns from such examples takes them; alike: all
    equally long.

    Of pairs counting on is preferred to counting back; of verdicts every second one is bad.
    """
    lengths = [words if alike else 1 + (7 * n + 3) % words for n in range(count)]
    answers = [" ".join(str(n + step) for step in range(length)) for n, length in enumerate(lengths)]
    file.write_text(json.dumps([ROWS[examples](f"Count on from {n}.", answer, n) for n, answer in enumerate(answers)]))
    return file
