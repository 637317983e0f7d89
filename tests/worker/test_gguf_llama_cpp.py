"""GGUF files in llama.cpp itself: the same ids, the same greedy tokens as transformers' own generate, for every family
that is written.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM

from studio import model
from studio.commands.export import proven
from studio.errors import DeviceError, ExportError
from studio.export import gguf_families, proof
from studio.export.llama_cpp import installed
from studio.talk.reference import of_base
from studio.tokens import Encoder
from studio.worker import gguf_file, gguf_types, prove
from studio.worker.llama_cpp import readers
from tests import families, tiny
from tests.methods import architectures

pytestmark = pytest.mark.skipif(not installed(), reason="no llama.cpp is installed")
QUESTIONS = [
    "What is the capital of France?",
    "Write one line about the sea.",
    "In 2026, 1234567 naïve cafés: 今天 👍🏽\n\n\tx = 1;  y",
]
ROPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3": (
        "llama",
        {
            "rope_type": "llama3",
            "rope_theta": 5000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "linear": ("qwen2", {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "yarn": (
        "qwen3",
        {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64},
    ),
    "longrope": (
        "phi3",
        {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.3, 2.0],
            "long_factor": [1.0, 2.0, 3.0, 5.0],
            "original_max_position_embeddings": 128,
        },
    ),
}


def made(folder: Path, kind: str, **changes: Any) -> Path:
    """A tiny random model whose answers differ from one another, with ChatML."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures.CONFIGS, kind, {**architectures.CONFIGS[kind], **changes})
        architectures.write(folder, kind)
    (folder / "chat_template.jinja").write_text(tiny.CHATML)
    return folder


def check(folder: Path, file: Path, tokens: int = 24, near: float = 0.0) -> None:
    """Prompts and greedy answers of the file in llama.cpp against transformers' generate on the folder.

    near: the difference of two logits up to which llama.cpp may take the other token.
    """
    found = of_base(folder)
    gguf_families.refuse(model.facts(folder), folder)
    gguf_file.write(found, file, "f32", tiny.CHATML)
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = Encoder(folder, found.template)
    for reader in readers(file, 240 + tokens):
        for question in QUESTIONS:
            said = [{"role": "user", "content": question}]
            ids = encoder.prompt_ids(said)
            theirs = reader.answer(said, tokens)
            assert theirs["prompt"] == ids, reader.name
            with torch.inference_mode():
                ours = whole.generate(
                    torch.tensor([ids]),
                    attention_mask=torch.ones(1, len(ids)),
                    do_sample=False,
                    max_new_tokens=tokens,
                    eos_token_id=2,
                )
            wanted, found = ours[0, len(ids) :].tolist(), [*theirs["ids"], 2][:tokens]
            if near and found != wanted:
                at = next(at for at, (own, other) in enumerate(zip(wanted, found, strict=False)) if own != other)
                with torch.inference_mode():
                    scores = whole(input_ids=torch.tensor([ids + wanted[:at]])).logits[0, -1]
                assert scores[wanted[at]] - scores[found[at]] < near, (reader.name, question)
            else:
                assert found == wanted, (reader.name, question)


@pytest.mark.parametrize("kind", families.GGUF)
def test_family(kind: str, home: Path, tmp_path: Path) -> None:
    gelu = kind == "gpt2" or kind.startswith("gemma")  # llama.cpp takes it from a table in float16
    check(made(tmp_path / "model", kind), tmp_path / "out.gguf", near=1e-3 if gelu else 0.0)


def test_near_ties_of_a_long_answer(home: Path, tmp_path: Path) -> None:
    """llama.cpp keeps keys and values in float16 unless told, and the proof would count that against the file."""
    check(made(tmp_path / "model", "mistral", max_position_embeddings=512), tmp_path / "out.gguf", 200)


def test_letters_apart_from_their_accents_are_told(home: Path, tmp_path: Path) -> None:
    """Qwen's tokenizers compose a text first (NFC), and llama.cpp cuts it as it comes."""
    base = made(tmp_path / "model", "qwen2")
    facts, file = model.facts(base), base / "tokenizer.json"
    assert not gguf_families.caution(facts, base)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": {"type": "NFC"}}))
    gguf_file.write(of_base(base), tmp_path / "out.gguf", "f32", tiny.CHATML)
    tokenizer = Tokenizer.from_file(str(file))
    for reader in readers(tmp_path / "out.gguf", 256):
        assert reader.ids("caf\u00e9") == tokenizer.encode("caf\u00e9").ids
        assert reader.ids("cafe\u0301") != tokenizer.encode("cafe\u0301").ids
    assert "NFC" in gguf_families.caution(facts, base)


@pytest.mark.parametrize("rope", ROPES)
def test_stretched_positions(rope: str, home: Path, tmp_path: Path) -> None:
    kind, parameters = ROPES[rope]
    check(made(tmp_path / "model", kind, rope_parameters=parameters), tmp_path / "out.gguf", 60)


def sentencepiece(folder: Path, prefix: bool) -> None:
    """A tokenizer as Llama 2's (prefix) or Gemma's is converted: BPE of pieces, bytes to fall back on, every pair that
    makes a piece merged.
    """
    words = sorted(
        {piece for text in tiny.TEXT for word in text.split() for piece in (word[:2], word[:3], word[:4], word)},
        key=lambda one: (len(one), one),
    )
    letters = sorted({letter for text in tiny.TEXT for letter in text if letter != " "} | {"\u2581"})
    pieces = ["<unk>", *tiny.SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    for word in ["\u2581" + word for word in words] + words:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces and len(pieces) < 400:
                pieces.append(word[:end])
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    merges = [
        (piece[:at], piece[at:])
        for piece in pieces[260:]
        for at in range(1, len(piece))
        if piece[:at] in vocabulary and piece[at:] in vocabulary
    ]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    blank = normalizers.Replace(" ", "\u2581")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), blank]) if prefix else blank
    if not prefix:
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(["<unk>", *tiny.SPECIAL])
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), "eos_token_id": 3})
    )
    (folder / "generation_config.json").unlink(missing_ok=True)


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece(prefix: bool, home: Path, tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "mistral")
    sentencepiece(folder, prefix)
    gguf_families.refuse(model.facts(folder), folder)
    gguf_file.write(of_base(folder), tmp_path / "out.gguf", "f32", tiny.CHATML)
    words = Encoder(folder, of_base(folder).template).tokenizer
    for reader in readers(tmp_path / "out.gguf", 256):
        for text in [*QUESTIONS, *tiny.TEXT, "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"]:
            assert reader.ids(text) == words.encode(text, add_special_tokens=False).ids, (reader.name, text)


@pytest.mark.parametrize("kind", [kind for kind in gguf_types.KINDS if "_k" in kind])
def test_k_quants_run_and_stay_near(kind: str, home: Path, tmp_path: Path) -> None:
    """256 wide, so that the K-blocks themselves are written: llama.cpp loads the file, and most greedy tokens are those
    of the exact one.
    """
    import gguf

    folder = made(tmp_path / "model", "llama", hidden_size=256, intermediate_size=512, head_dim=64)
    gguf_file.write(of_base(folder), tmp_path / "out.gguf", kind, tiny.CHATML)
    types = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == gguf_types.KINDS[kind][0]
    assert types["token_embd.weight"] == gguf.GGMLQuantizationType.Q6_K  # tied: it is the head
    asked = [{"role": "user", "content": QUESTIONS[0]}]
    answers = [reader.answer(asked, 8) for reader in readers(tmp_path / "out.gguf", 256)]
    assert all(len(one["ids"]) == 8 or one["finish"] == "stop" for one in answers)


def rows(count: int, length: int) -> prove.Rows:
    random = numpy.random.default_rng(0)
    drawn = [random.integers(3, 390, length).tolist() for _ in range(count)]
    return [{"ids": ids, "labels": [-100] * 4 + ids[4:]} for ids in drawn]


def by_llama_cpp(file: Path, rows: prove.Rows, context: int) -> float:
    """The mean loss by llama.cpp's own log-probabilities: those of all tokens behind each beginning of each row.

    They are the model's, before the bias to a letter (it gives none beside half a character).
    """
    code = """if 1:
        import json, sys, xllamacpp
        file, context, rows = sys.argv[1], int(sys.argv[2]), json.load(sys.stdin)
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.n_gpu_layers = file, context, 1, 0
        params.warmup, params.verbosity, params.cpuparams.n_threads = False, 0, 1
        server, lost = xllamacpp.Server(params), []
        for row in rows:
            for at, label in enumerate(row["labels"]):
                if label == -100:
                    continue
                told = server.handle_completions({"prompt": row["ids"][:at], "n_predict": 1, "temperature": 0,
                    "n_probs": 400, "logit_bias": [[25, 1000]], "cache_prompt": False})
                (first,) = told["choices"][0]["logprobs"]["content"]
                lost.append(-next(one["logprob"] for one in first["top_logprobs"] if one["id"] == label))
        sys.stdout.write("loss " + str(sum(lost) / len(lost)))
        """
    asked = subprocess.run(
        [sys.executable, "-c", code, file, str(context)], input=json.dumps(rows), capture_output=True, text=True
    )
    return float(asked.stdout.rpartition("loss ")[2])


DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
LONG = {
    "rope_parameters": ROPES["longrope"][1],
    "original_max_position_embeddings": 128,
    "max_position_embeddings": 512,
}
LOSSES: dict[str, tuple[str, dict[str, Any], int]] = {
    **{kind: (kind, {}, 24) for kind in families.GGUF if kind != "gemma"},  # transformers reads none from a GGUF
    **{rope: (kind, {"rope_parameters": parameters}, 150) for rope, (kind, parameters) in ROPES.items()},
    "longrope, a short text": ("phi3", {**LONG, "original_max_position_embeddings": 256}, 24),
    "longrope, a long text": ("phi3", LONG, 150),
    "part of the head turned": ("phi3", {"rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.5}}, 24),
    "Gemma 3, stretched": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": {**DEFAULT, "rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": DEFAULT,
            }
        },
        24,
    ),
    "a window that llama.cpp leaves out": ("mistral", {"sliding_window": 8}, 24),
    "heads wider than the rest": ("qwen3", {"head_dim": 32}, 24),
}


@pytest.mark.parametrize("case", LOSSES)
def test_the_loss_of_a_file_is_what_llama_cpp_computes(case: str, home: Path, tmp_path: Path) -> None:
    """transformers alone leaves out Gemma's query scale, heads of their own width and every stretching of positions."""
    pytest.importorskip("xllamacpp")
    kind, changes, length = LOSSES[case]
    base = made(tmp_path / "model", kind, **changes)
    gguf_file.write(of_base(base), tmp_path / "out.gguf", "f32", tiny.CHATML)
    held_out = rows(1 if length > 100 else 2, length)
    order = {"questions": [], "prompts": [], "texts": [], "max_tokens": 4, "rows": held_out}
    told = prove.of_gguf(tmp_path / "out.gguf", order)
    assert told["loss"] == pytest.approx(
        by_llama_cpp(tmp_path / "out.gguf", held_out, 512 if length > 100 else 128), rel=1e-4
    )
    if "window" not in case:
        whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        assert told["loss"] == pytest.approx(prove.mean_loss(whole, held_out), rel=1e-4)


def test_a_loss_that_cannot_be_taken_is_told(home: Path, tmp_path: Path) -> None:
    """transformers reads no GGUF file of the first Gemma; the page had a dash in the place of the loss."""
    gguf_file.write(of_base(made(tmp_path / "model", "gemma")), tmp_path / "out.gguf", "q8_0", tiny.CHATML)
    order = {"questions": [], "prompts": [], "texts": list(proof.TEXTS), "max_tokens": 4, "rows": rows(2, 24)}
    theirs = prove.of_gguf(tmp_path / "out.gguf", order)
    ours = {"answers": [], "ids": theirs["ids"], "rows": order["rows"], "loss": {"trained": 3.2, "merged": 3.2}}
    told = proven(proof.compared([], ours, theirs))
    assert told[1] == "Held-out loss: trained 3.2000, merged 3.2000 (2 rows)."
    assert re.match(r"The held-out loss of the GGUF file could not be taken: .*gemma", told[2])


def test_a_proof_needs_no_tokenizer_of_transformers(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers builds none from a GGUF file of a sentencepiece vocabulary without an unknown token."""
    base = made(tmp_path / "model", "gemma3_text")
    file = tmp_path / "out.gguf"
    gguf_file.write(of_base(base), file, "f32", tiny.CHATML)
    order = {"questions": [], "prompts": [], "texts": ["1 café"], "max_tokens": 4, "rows": rows(1, 20)}
    assert prove.of_gguf(file, order)["loss"]
    monkeypatch.setattr(prove, "installed", lambda: [])
    with pytest.raises(DeviceError, match="transformers does not read this GGUF file .Unk token"):
        prove.of_gguf(file, order)


def test_a_program_that_dies_leaves_the_others_answers(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama-cpp-python is a module here that ends its process by signal 11, as it does on some quantized files."""
    pytest.importorskip("xllamacpp")
    (tmp_path / "llama_cpp.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = tmp_path / "out.gguf"
    gguf_file.write(of_base(made(tmp_path / "model", "llama")), file, "f32", tiny.CHATML)
    asked = [{"messages": [{"role": "user", "content": QUESTIONS[0]}]}]
    order = {"questions": asked, "prompts": [], "texts": list(proof.TEXTS), "max_tokens": 4, "rows": []}
    told = prove.of_gguf(file, order)
    died = "llama-cpp-python ended while it read out.gguf (signal 11)."
    assert (told["by"].startswith("llama.cpp (xllamacpp"), len(told["answers"])) == (True, 1)
    assert told["not_asked"] == [died]
    ours = {"answers": told["answers"], "ids": told["ids"], "rows": [], "loss": {}}
    assert proven(proof.compared(asked, ours, told))[-1] == f"Not asked: {died}"
    monkeypatch.setattr(prove, "installed", lambda: ["llama-cpp-python"])
    with pytest.raises(ExportError, match=re.escape(died)):
        prove.of_gguf(file, order)
