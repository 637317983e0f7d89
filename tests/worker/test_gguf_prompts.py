"""Tokenizers and templates of odd kinds: llama.cpp makes the trained ids of a chat, or it is told that it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from studio import model
from studio.export import folders, gguf_families, hf_files, modelfile
from studio.export.llama_cpp import installed
from studio.talk.reference import of_base
from studio.template import Template
from studio.tokens import Encoder
from studio.worker import gguf_file
from studio.worker.llama_cpp import readers
from tests import tiny
from tests.worker.test_gguf import SPLITS
from tests.worker.test_gguf_llama_cpp import made, sentencepiece

llama_cpp = pytest.mark.skipif(not installed(), reason="no llama.cpp is installed")
ADDED = {"special": False, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def template(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in (folder / "tokenizer_config.json", folder / "config.json", folder / "generation_config.json"):
            kept = json.loads(file.read_text()) if file.is_file() else {}
            file.write_text(
                json.dumps({key: value for key, value in kept.items() if key.removesuffix("_id") not in names})
            )

    return change


def tokens(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def written(folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        change(tokenizer)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    return written


def add(content: str, **kinds: Any) -> Callable[[Path], None]:
    """A token behind the others, or one with an id of its own."""
    return tokens(
        lambda found: found["added_tokens"].append(
            {**ADDED, "content": content, "id": len(found["model"]["vocab"]), **kinds}
        )
    )


def take_blanks(**sides: bool) -> Callable[[Path], None]:
    return tokens(lambda found: [token.update(sides) for token in found["added_tokens"]])


def first_blank(folder: Path) -> None:
    sentencepiece(folder, False)
    cut = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    tokens(lambda found: found.update(normalizer=None, pre_tokenizer=cut))(folder)


SPACED = tiny.CHATML.replace("'<|im_end|>\n'", "' <|im_end|>\n'")
CASES: dict[str, tuple[Callable[[Path], Any], ...]] = {
    "no BOS, and a template that writes one": (without("bos_token"), template("{{ bos_token }}" + tiny.CHATML)),
    "an end token that does not end the turn": (
        tokens(lambda found: None),
        lambda folder: (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}'),
        template("{{ eos_token }}" + tiny.CHATML),
    ),
    "a padding token in the template": (template("{{ pad_token }}{{ unk_token }}" + tiny.CHATML),),
    "a token without a row": (add("<|image|>", id=400, special=True),),
    "a token that is no special one": (add("sea"),),
    "tokens that take the blanks behind them": (take_blanks(rstrip=True),),
    "tokens that take all blanks beside them": (take_blanks(lstrip=True, rstrip=True), template(SPACED)),
    "a blank before the first word alone": (first_blank, template("Talk. " + tiny.CHATML)),
}


@llama_cpp
@pytest.mark.parametrize("case", CASES)
def test_a_chat_has_the_trained_ids(case: str, home: Path, tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "llama")
    for change in CASES[case]:
        change(folder)
    found, file = of_base(folder), tmp_path / "out.gguf"
    gguf_file.write(found, file, "f32", hf_files.plain_template(found.template.text))
    asked = [{"role": "user", "content": "  the sea, 12\n\n"}, {"role": "assistant", "content": "Blue. "}]
    asked += [{"role": "user", "content": "今天 👍🏽?"}]
    wanted = Encoder(folder, found.template).prompt_ids(asked)
    assert [reader.answer(asked, 1)["prompt"] for reader in readers(file, 256)] == [wanted] * len(installed())


def test_words_that_llama_cpp_cuts_otherwise_are_told(home: Path, tmp_path: Path) -> None:
    """A word that no merges lead to: Llama 3's tokenizer takes it whole, and llama.cpp wherever the pattern is its."""
    folder = made(tmp_path / "model", "llama")
    facts = model.facts(folder)

    def cut(pattern: str, whole: bool) -> Callable[[Path], None]:
        return tokens(
            lambda found: found.update(
                pre_tokenizer=SPLITS[pattern],
                model={**found["model"], "ignore_merges": whole, "vocab": {**found["model"]["vocab"], "zqxv": 399}},
            )
        )

    for pattern, whole, told in (
        ("llama-bpe", True, False),
        ("llama-bpe", False, True),
        ("qwen2", False, False),
        ("qwen2", True, True),
    ):
        cut(pattern, whole)(folder)
        assert ("'zqxv'" in gguf_families.caution(facts, folder)) is told, (pattern, whole)
    add("cat", single_word=True)(folder)
    assert "'cat'" in gguf_families.caution(facts, folder)


def test_every_end_that_the_format_holds_is_written(home: Path, tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "llama")
    (folder / "generation_config.json").write_text('{"eos_token_id": [390, 2]}')
    gguf_file.write(of_base(folder), tmp_path / "out.gguf", "f32", tiny.CHATML)
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    assert [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot", "eom")] == [2, 2, 390]


def test_a_stop_that_is_a_quotation_mark(tmp_path: Path) -> None:
    """Ollama takes three marks away at either end where there are six, and one else."""
    text = modelfile.modelfile(Template("", tiny.CHATML), "model.gguf", ('"', "<|im_end|>"))
    assert 'PARAMETER stop """""""\nPARAMETER stop "<|im_end|>"\n' in text


def test_longrope_is_kept_to_its_short_context(home: Path, tmp_path: Path) -> None:
    """llama.cpp takes the factors for long texts by the context it is started with, transformers by the text."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    folder = made(tmp_path / "model", "phi3", rope_parameters=rope, original_max_position_embeddings=128)
    assert "larger than 128 tokens" in folders.refuse(of_base(folder), "gguf")
    written = tmp_path / "out"
    folders._ollama(of_base(folder), written, "f32", lambda *_: None)
    assert "PARAMETER num_ctx 128\n" in (written / "Modelfile").read_text()
