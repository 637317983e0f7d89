"""GGUF files read back by others' code (the gguf package, transformers): architectures, tied and untied heads,
tokenizers, templates.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from studio import model
from studio.errors import ExportError
from studio.export import gguf_families, gguf_tokenizer
from studio.methods import METHODS
from studio.talk.reference import of_base
from studio.tokens import Encoder
from studio.worker import gguf_file
from studio.worker.convert import read_back
from tests import tiny
from tests.methods import architectures

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SPLITS = {
    name: {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            BYTES,
        ],
    }
    for pattern, name in gguf_tokenizer.PATTERNS.items()
}
CUTS: dict[str, Any] = {
    "gpt-2": {**BYTES, "use_regex": True},
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, {**BYTES, "use_regex": True}],
    },
    **SPLITS,
}
TEXT = "What's 1234567 + 89? I'LL say: naïve café — 怎样?\n\n  x  \tDone!"


def folder(path: Path, kind: str, cut: str = "gpt-2") -> Path:
    """A tiny model of an architecture whose tokenizer cuts text one way."""
    architectures.write(path, kind)
    words = json.loads((path / "tokenizer.json").read_text())
    words["pre_tokenizer"] = CUTS[cut]
    (path / "tokenizer.json").write_text(json.dumps(words))
    (path / "chat_template.jinja").write_text(tiny.CHATML)
    return path


def written(path: Path, kind: str, cut: str = "gpt-2", to: str = "f16") -> tuple[Path, Path]:
    """(the model's folder, its GGUF)"""
    made = folder(path / "model", kind, cut)
    gguf_families.refuse(model.facts(made), made)
    gguf_file.write(of_base(made), path / "out.gguf", to, tiny.CHATML)
    return made, path / "out.gguf"


def told(file: Path, key: str) -> Any:
    return gguf.GGUFReader(file).fields[key].contents()


@pytest.mark.parametrize("to", ["f16", "q8_0"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_read_back_it_computes_the_same(kind: str, to: str, home: Path, tmp_path: Path) -> None:
    """Through transformers: names, order of query's and key's rows, biases, norms of heads, tied (llama, qwen) and
    untied (mistral) heads.
    """
    made, file = written(tmp_path, kind, to=to)
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        ours, theirs = (
            METHODS["full"]().load(one, torch.float32).eval()(input_ids=ids).logits
            for one in (made, read_back(file, tmp_path).base)
        )
    assert (ours - theirs).norm() < (0.002 if to == "f16" else 0.05) * ours.norm()
    untied = any(tensor.name == "output.weight" for tensor in gguf.GGUFReader(file).tensors)
    assert untied == (kind == "mistral")


@pytest.mark.parametrize("cut", CUTS)
def test_what_a_reader_must_know_of_the_tokenizer(cut: str, home: Path, tmp_path: Path) -> None:
    made, file = written(tmp_path, "llama", cut)
    words = Encoder(made, of_base(made).template).tokenizer
    assert told(file, "tokenizer.ggml.model") == "gpt2"
    assert told(file, "tokenizer.ggml.pre") == cut
    tokens, types = told(file, "tokenizer.ggml.tokens"), told(file, "tokenizer.ggml.token_type")
    assert [words.token_to_id(token) for token in tokens[: len(words.get_vocab())]] == list(
        range(len(words.get_vocab()))
    )
    assert len(tokens) == model.facts(made).vocab_size
    assert [tokens[n] for n, one in enumerate(types) if one == gguf_tokenizer.CONTROL] == tiny.SPECIAL
    assert (
        told(file, "tokenizer.ggml.eos_token_id")
        == told(file, "tokenizer.ggml.eot_token_id")
        == words.token_to_id("<|im_end|>")
    )
    assert told(file, "tokenizer.ggml.add_bos_token") is False
    assert told(file, "tokenizer.chat_template") == tiny.CHATML


@pytest.mark.parametrize("cut", CUTS)
def test_prompts_are_the_same_ids(cut: str, home: Path, tmp_path: Path) -> None:
    made, file = written(tmp_path, "qwen2" if cut == "qwen2" else "llama", cut)
    said = [{"role": "user", "content": TEXT}]
    ours, theirs = (
        Encoder(one.base, one.template).prompt_ids(said) for one in (of_base(made), read_back(file, tmp_path))
    )
    assert ours == theirs


@pytest.mark.parametrize(
    "steps",
    [
        {"type": "Metaspace"},
        {**BYTES, "use_regex": True, "add_prefix_space": True},
        None,
        BYTES,
        {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": r"\p{N}+"}}, BYTES]},
    ],
)
def test_a_tokenizer_that_llama_cpp_would_cut_otherwise_is_refused(steps: Any, tmp_path: Path) -> None:
    made = folder(tmp_path, "llama")
    words = json.loads((made / "tokenizer.json").read_text())
    (made / "tokenizer.json").write_text(json.dumps({**words, "pre_tokenizer": steps}))
    with pytest.raises(ExportError, match="cut text"):
        gguf_families.refuse(model.facts(made), made)
