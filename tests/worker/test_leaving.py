"""What leaves is what was trained: heads of their own, the base's tokenizer and config, stops, memory, and a proof that
may fail.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from studio import device, template
from studio.errors import DeviceError, ExportError, ModelError
from studio.export import folders, hf_files, proof
from studio.methods import METHODS
from studio.runs import base_record
from studio.talk import stopping
from studio.talk.reference import resolve
from studio.tokens import Encoder
from studio.worker import gguf_file, model_config, prove
from studio.worker.convert import dequantized
from studio.worker.export import merged
from studio.worker.loaded import LoadedModels
from studio.worker.merge import merge
from tests.worker.carrying import carry, order, rows
from tests.worker.test_export import logits, trained
from tests.worker.test_gguf import SPLITS


@pytest.mark.parametrize("stored", ["once", "twice"])
@pytest.mark.parametrize("whole", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"]])
def test_a_head_trained_apart_stays_apart(
    whole: list[str], stored: str, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The base is tied; transformers reads the merged folder and the GGUF, and answers as base and adapter do in the
    chat. twice: the base's file holds the tied head beside the embedding.
    """
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    if stored == "twice":
        tensors = load_file(base / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    found = resolve(trained(base, modules_to_save=whole).id)
    ids = torch.arange(5, 25)[None]
    wanted = logits(LoadedModels("cpu", torch.float32).load(found).model, ids)
    merged(found, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    gguf_file.write(found, tmp_path / "out.gguf", "f32", "")
    for read in (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32),
        dequantized(tmp_path / "out.gguf", torch.float32),
    ):
        assert torch.allclose(logits(read, ids), wanted, atol=1e-4)


def test_a_tied_model_stays_tied(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    merged(resolve(trained(tiny_model).id), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True


@pytest.fixture
def odd_base(tiny_model: Path, tmp_path: Path) -> Path:
    """A base whose tokenizer class transformers 5 builds anew, with other ids than tokenizer.json's."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    words = json.loads((base / "tokenizer.json").read_text())
    words |= {"pre_tokenizer": SPLITS["llama-bpe"], "normalizer": {"type": "Lowercase"}}
    (base / "tokenizer.json").write_text(json.dumps(words))
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(
        json.dumps({**config, "tokenizer_class": "GPT2Tokenizer", "chat_template": "stale"})
    )
    return base


def same_ids(folder: Path, base: Path) -> bool:
    exact, theirs = Tokenizer.from_file(str(base / "tokenizer.json")), AutoTokenizer.from_pretrained(folder)
    return all(
        theirs.encode(text, add_special_tokens=False) == exact.encode(text, add_special_tokens=False).ids
        for text in proof.TEXTS
    )


def test_the_tokenizer_is_copied(home: Path, odd_base: Path, tmp_path: Path) -> None:
    """Byte for byte; a class that transformers 5 would build anew, with other ids, is named otherwise."""
    base = odd_base
    (base / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    merged(resolve(trained(base).id), tmp_path / "out")
    for name in ("tokenizer.json", "special_tokens_map.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert (
        json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["chat_template"]
        == (tmp_path / "out" / "chat_template.jinja").read_text()
    )
    assert same_ids(tmp_path / "out", base)


def test_an_adapters_tokenizer_gives_the_ids_that_were_trained(home: Path, odd_base: Path, tmp_path: Path) -> None:
    """Read by transformers out of the result's folder, which names no model."""
    run_ = order(odd_base, rows(tmp_path / "rows.json", 2), "training.max_steps=1", "data.eval=0")
    assert carry(run_)[-1]["state"] == "finished"
    assert not same_ids(odd_base, odd_base)
    assert same_ids(run_.result, odd_base)


ROPES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", {"rope_theta": 5e5, "rope_type": "default"}, {"rope_theta": 5e5}),
    (
        "llama",
        {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
    ),
    (
        "phi3",
        {
            "rope_theta": 1e4,
            "rope_type": "longrope",
            "short_factor": [1.0],
            "long_factor": [2.0],
            "original_max_position_embeddings": 64,
        },
        {
            "rope_theta": 1e4,
            "original_max_position_embeddings": 64,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]},
        },
    ),
    (
        "gemma3_text",
        {
            "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
            "sliding_attention": {"rope_theta": 1e4},
        },
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
]


@pytest.mark.parametrize(("kind", "parameters", "legacy"), ROPES)
def test_positions_are_told_in_the_words_of_transformers_4(
    kind: str, parameters: dict, legacy: dict, tmp_path: Path
) -> None:
    assert hf_files.legacy_rope({"rope_parameters": parameters}) == legacy
    assert hf_files.legacy_rope({**legacy, "rope_parameters": parameters}) == {}


def test_the_config_is_the_bases_own(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    merged(resolve(trained(tiny_model).id), tmp_path / "out", "f16")
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (tiny_model, tmp_path / "out"))
    assert {key: after[key] for key in before if key != "dtype"} == {
        key: value for key, value in before.items() if key != "dtype"
    }
    assert after["dtype"] == after["torch_dtype"] == "float16"
    assert AutoConfig.from_pretrained(tmp_path / "out").vocab_size == before["vocab_size"]


def test_end_tokens_as_trained(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The trained end of turn first, then what the base itself stops at."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    (base / "generation_config.json").write_text('{"eos_token_id": [0, 2], "temperature": 0.6}')
    found = resolve(trained(base).id)
    assert stopping.end_tokens(found) == [2, 0]
    merged(found, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {
        "eos_token_id": [2, 0],
        "temperature": 0.6,
    }


def test_merging_looks_at_memory(home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, whole = resolve(trained(tiny_model).id), resolve(trained(tiny_model, dora=True).id)
    monkeypatch.setattr(
        device, "cpu", lambda: device.Device(name="small", kind="cpu", memory=10_000, free=10_000, bf16=False)
    )
    for found in (plain, whole):
        with pytest.raises(DeviceError, match="GiB are free"):
            merge(found, tmp_path, torch.float32)


def test_the_proof_takes_what_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def free(cpu: int, card: int) -> None:
        ram = device.Device(name="RAM", kind="cpu", memory=cpu, free=cpu, bf16=False)
        monkeypatch.setattr(device, "cpu", lambda: ram)
        monkeypatch.setattr(
            device, "devices", lambda: [device.Device(name="card", kind="cuda", memory=card, free=card, bf16=True), ram]
        )
        monkeypatch.setattr(prove.room, "reserved_by_training", lambda: (0, 0))

    free(100, 100)
    assert prove.placement(10, torch.bfloat16)[1] == torch.bfloat16
    free(100, 10)
    assert prove.placement(10, torch.bfloat16) == ("cpu", torch.float32)
    free(30, 10)
    assert prove.placement(10, torch.bfloat16) == ("cpu", torch.bfloat16)
    free(10, 10)
    with pytest.raises(DeviceError, match="The proof loads the model"):
        prove.placement(10, torch.bfloat16)


def test_a_proof_that_fails_leaves_the_export(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ExportError("The worker failed: killed.", "If memory was short, end the chat.")

    monkeypatch.setattr(folders, "prove", fail)
    answer = folders.export(trained(tiny_model).id, "adapter", tmp_path / "out.zip")
    assert answer["proof"] == {
        "failed": {"message": "The worker failed: killed.", "hint": "If memory was short, end the chat."}
    }
    assert Path(answer["path"]).is_file()
    from studio.commands.export import proven

    assert proven(answer["proof"])[0].startswith("The file stands, but the proof could not be made: The worker failed")


def test_both_sides_of_a_proof(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The trained side through the chat, the merged folder through transformers, in this process: the same, with three
    losses.
    """
    found = resolve(trained(tiny_model).id)
    merged(found, tmp_path / "out")
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(3)
    ]
    order = {
        "questions": [{"messages": [{"role": "user", "content": text}]} for text in ("Hello?", "What is the sea?")],
        "texts": list(proof.TEXTS),
        "max_tokens": 20,
        "conversations": rows,
        "encoding": {"max_length": 128, "too_long": "cut", "train_on": "assistant"},
    }
    ours = prove.trained(found, order)
    theirs = prove.of_transformers(tmp_path / "out", {**order, "rows": ours["rows"]})
    told = proof.compared(order["questions"], ours, theirs)
    assert (told["agree"], told["prompts"], told["same_prompts"]) == (2, 2, True)
    assert told["tokenizer"] == {"texts": 10, "same": 10, "differences": []}
    loss = told["loss"]
    assert loss["trained"] == pytest.approx(loss["merged"], abs=1e-4) == pytest.approx(loss["exported"], abs=1e-4)
    assert loss["rows"] == 3
    base = METHODS["full"]().load(tiny_model, torch.float32)
    assert abs(prove.mean_loss(base, ours["rows"]) - loss["trained"]) > 1e-3, "the adapter is in all three"


def test_a_proof_asks_no_more_than_there_are_positions(tiny_model: Path) -> None:
    """GPT-2's are learned: an answer past them was an IndexError, told as if memory were short."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    plain = GPT2Config(vocab_size=len(tokenizer), n_positions=32, n_embd=16, n_layer=1, n_head=2)
    (answer,) = prove._generate(GPT2LMHeadModel(plain).eval(), tokenizer, [list(range(5, 25))], 40)
    assert (len(answer["ids"]), answer["finish"]) == (12, "length")


def test_a_proof_shows_every_program_the_tools(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The studio, transformers and llama.cpp are given the same prompts, with the tools of a row among them."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    text = hf_files.plain_template(template.load("chatml", tiny_model).text)
    (base / "chat_template.jinja").write_text(text)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    found = resolve(trained(base).id)
    assert [folders.refuse(found, kind) for kind in ("gguf", "ollama")] == ["", ""]
    merged(found, tmp_path / "out", "f32")
    gguf_file.write(found, tmp_path / "out.gguf", "f32", text)
    place = {"type": "string", "description": "A <town>, “quoted”"}
    function = {"name": "weather", "description": "How warm?", "parameters": {"type": "object", "properties": {}}}
    function["parameters"]["properties"] = {"place": place}
    asked = [{"role": "user", "content": "Warm in Rome?"}]
    tools = [{"type": "function", "function": function}]
    order = {
        "questions": [{"messages": asked, "tools": tools}, {"messages": asked}],
        "texts": list(proof.TEXTS),
        "max_tokens": 12,
        "conversations": [],
        "encoding": {},
    }
    ours = prove.trained(found, order)
    prompts = [answer["prompt"] for answer in ours["answers"]]
    assert ["weather" in Encoder(base, found.template).tokenizer.decode(ids) for ids in prompts] == [True, False]
    order |= {"rows": [], "prompts": prompts}
    for theirs in (prove.of_transformers(tmp_path / "out", order), prove.of_gguf(tmp_path / "out.gguf", order)):
        told = proof.compared(order["questions"], ours, theirs)
        assert (told["agree"], told["same_prompts"]) == (2, True), told["by"]


def test_a_base_with_other_weights_is_refused(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """In chat, merge and export, which all ask for the voice; put back, it is taken again, and a copy of it elsewhere
    too.
    """
    from studio.base import shards

    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    one = trained(base)
    manifest = one.result / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "base_fingerprint": shards.fingerprint(base)}))
    assert resolve(one.id).base == base
    shutil.copy(base / "model.safetensors", tmp_path / "kept")
    tensors = load_file(base / "model.safetensors")
    save_file(
        {name: weight + 0.01 for name, weight in tensors.items()}, base / "model.safetensors", metadata={"format": "pt"}
    )
    for ask in (
        lambda: resolve(one.id),
        lambda: folders.export(one.id, "merged", tmp_path / "out"),
        lambda: folders.export(one.id, "adapter", tmp_path / "out"),
    ):
        with pytest.raises(ModelError, match="has other weights than when it was trained"):
            ask()
    shutil.copy(tmp_path / "kept", base / "model.safetensors")
    assert resolve(one.id).base == base


def test_a_base_with_other_settings_is_refused(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value in any of its files that changes an answer is named; files that transformers saved anew are the same."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "rope_theta": 5e5}))  # as transformers 4 wrote it
    run_ = trained(base)
    manifest = run_.result / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **base_record.of(base)}))
    monkeypatch.setattr(base_record.headers, "completed", model_config.settings)  # in this process: it has torch
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(base)
    AutoTokenizer.from_pretrained(base).save_pretrained(base)
    assert "rope_parameters" in (base / "config.json").read_text()
    assert resolve(run_.id).base == base
    for name, change, words in (
        ("config.json", {"sliding_window": 16}, "sliding_window null → 16"),
        ("config.json", {"rms_norm_eps": 1e-3}, "config.json: rms_norm_eps 1e-05 → 0.001"),
        ("config.json", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "rope_theta 500000.0 → 1000"),
        ("config.json", {"sliding_window": 16}, "sliding_window null → 16"),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "tokenizer.json: normalizer"),
        ("tokenizer_config.json", {"bos_token": "<|im_end|>"}, "bos_token .* → "),
        ("generation_config.json", {"eos_token_id": [1, 7]}, r"eos_token_id \[.*\] → \[.*7\]"),
    ):
        kept = (base / name).read_text()
        (base / name).write_text(json.dumps({**json.loads(kept), **change}))
        with pytest.raises(ModelError, match=f"would answer otherwise .*{words}"):
            resolve(run_.id)
        (base / name).write_text(kept)
    assert resolve(run_.id).base == base


@pytest.mark.parametrize(
    ("how", "saved"),
    [
        ("modules_to_save", False),
        ("modules_to_save", "auto"),
        ("rows", "auto"),
        ("embedding layers", True),
        ("no rows", False),
    ],
)
def test_an_adapter_from_elsewhere_with_new_words(
    how: str, saved: bool | str, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Made with peft alone: its own tokenizer and table are used in the chat and in the merged model; without rows it
    says what is missing.
    """
    from peft import LoraConfig, get_peft_model

    base, folder = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), tmp_path / "adapter"
    words = AutoTokenizer.from_pretrained(tiny_model)
    words.add_special_tokens({"additional_special_tokens": ["<|call|>"]})
    base.resize_token_embeddings(len(words))
    torch.manual_seed(1)
    tuned = get_peft_model(
        base,
        LoraConfig(
            r=4,
            target_modules=["q_proj", "v_proj"],
            init_lora_weights=False,
            modules_to_save=["embed_tokens", "lm_head"] if how == "modules_to_save" else None,
            trainable_token_indices=[len(words) - 1] if how == "rows" else None,
        ),
    ).eval()
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "embed_tokens" in name or "lm_head" in name:
                weight.add_(torch.randn(weight.shape) * 0.05)
    tuned.save_pretrained(folder, save_embedding_layers=saved)
    words.save_pretrained(folder)
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {**json.loads((folder / "adapter_config.json").read_text()), "base_model_name_or_path": str(tiny_model)}
        )
    )
    if how == "no rows":
        with pytest.raises(ModelError, match="rows for .* only: the words that were added have none"):
            resolve(str(folder))
        return
    found = resolve(str(folder))
    loaded_model = LoadedModels("cpu", torch.float32).load(found)
    new = len(words) - 1
    assert loaded_model.encoder.tokenizer.encode("<|call|>", add_special_tokens=False).ids == [new]
    ids = torch.tensor([[5, 6, new, 7, 8]])
    wanted = logits(tuned, ids)
    assert torch.allclose(logits(loaded_model.model, ids), wanted, atol=1e-4)
    merged(found, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert loaded.config.vocab_size == len(words)
    assert torch.allclose(logits(loaded, ids), wanted, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids("<|call|>") == new
