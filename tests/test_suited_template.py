"""A base without a chat format: `auto` takes a template that ends in a real token, and what ends in plain text is
warned about.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from studio import template, template_check
from studio.tokens import Encoder

BASES = {
    "chatml": ["<|im_start|>", "<|im_end|>", "</s>"],
    "llama3": ["<s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "</s>"],
    "gemma": ["<s>", "<start_of_turn>", "<end_of_turn>", "</s>"],
    "phi": ["<|user|>", "<|assistant|>", "<|end|>", "</s>"],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
    "alpaca": ["</s>"],
}


def base(folder: Path, tiny_model: Path, special: list[str]) -> Path:
    """A model without template whose byte-level tokenizer knows these special tokens alone."""
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("chat_template.jinja", "tokenizer*"))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(special)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return folder


@pytest.mark.parametrize("name", BASES)
def test_auto_ends_in_a_token(name: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = base(tmp_path / "base", tiny_model, BASES[name])
    used = template.load("auto", folder)
    assert used.name == name
    encoder = Encoder(folder, used)
    assert encoder.tokenizer.token_to_id(used.stop_strings[0]) is not None
    assert encoder.end_of_turn_warning() == ""
    template_check.check(encoder, [])


def test_an_end_of_plain_text_is_warned_about(tiny_model: Path, tmp_path: Path) -> None:
    folder = base(tmp_path / "base", tiny_model, BASES["alpaca"])
    told = Encoder(folder, template.load("chatml", folder)).end_of_turn_warning()
    assert "'<|im_end|>', which is 10 plain tokens" in told
    assert "data.new_tokens" in told
