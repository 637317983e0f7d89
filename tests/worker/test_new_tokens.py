"""data.new_tokens from order to export: rows trained, carried, and read by transformers, peft and llama.cpp alone."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio import config, data, device, estimate, model, new_tokens, preflight, run, token_rows
from studio.__main__ import parser
from studio.base.tensors import Tensor
from studio.commands import data as commands
from studio.commands import estimate as estimating
from studio.errors import ModelError, OrderError
from studio.export import card, folders, hf_files, report
from studio.methods import METHODS
from studio.talk.reference import resolve
from studio.tokens import Encoder
from studio.ui import measure
from studio.ui.words import translate
from studio.worker import combine, gguf_file
from studio.worker.export import merged
from studio.worker.llama_cpp import readers
from studio.worker.loaded import LoadedModels
from studio.worker.loss import loss
from studio.worker.packing import collate
from studio.worker.prove import answers
from studio.worker.train import main
from tests import tiny
from tests.methods import architectures

MARKS = ["<|im_start|>", "<|im_end|>", "<tool>"]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TRAINING = ("lora", "qlora", "full")  # methods that train rows
SPARE = 32  # rows that some bases have beyond their tokens


def base(
    folder: Path, kind: str = "llama", tied: bool = True, spare: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """A tiny random base whose tokenizer knows no chat: ChatML's marks are text to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "SPECIAL", ["<|endoftext|>"])
        words = tiny.tokenizer()
        settings = {
            **architectures.CONFIGS[kind],
            "vocab_size": words.get_vocab_size() + spare,
            "tie_word_embeddings": tied,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
        patch.setitem(architectures.CONFIGS, kind, settings)
        architectures.write(folder, kind)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
        )
    )
    return folder


def rows(file: Path) -> Path:
    answers = ["Paris. <tool>", "blue <tool> wide", "yes"]
    file.write_text(
        json.dumps(
            [
                {
                    "messages": [
                        {"role": "user", "content": QUESTION[0]["content"] if n % 3 == 0 else f"Question {n}?"},
                        {"role": "assistant", "content": answers[n % 3]},
                    ]
                }
                for n in range(12)
            ]
        )
    )
    return file


def order(folder: Path, data: Path, method: dict[str, Any] | str = "lora", **training: Any) -> config.RunConfig:
    return config.build(
        {
            "model": str(folder),
            "data": {"train": str(data), "eval": 0.2, "template": "chatml", "new_tokens": MARKS},
            "method": method,
            "training": {
                "max_steps": 8,
                "save_every": 4,
                "eval_every": 4,
                "batch_size": 4,
                "accumulation": 1,
                "learning_rate": 2e-2,
                "threads": 1,
                "keep_checkpoints": 9,
                "precision": "fp32",
                "samples": 0,
                **training,
            },
        }
    )


def logits(loaded: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return loaded(input_ids=ids).logits


@pytest.mark.parametrize("spare", [0, SPARE])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_from_order_to_merge(method: str, tied: bool, spare: int, home: Path, tmp_path: Path) -> None:
    """The run's rows move; transformers alone, peft alone and the chat compute the same; the ids are the same
    everywhere.
    """
    folder, data = base(tmp_path / "base", tied=tied, spare=spare), rows(tmp_path / "rows.json")
    one = run.create(order(folder, data, method, samples=1))
    assert main(one) == 0
    before = model.facts(folder).rows
    added = new_tokens.assign_ids(folder, MARKS)
    assert list(added.ids.values()) == [before - spare, before - spare + 1, before - spare + 2]
    assert added.size == max(before, before - spare + 3)
    plan = next(event for event in one.events() if event["kind"] == "plan")
    assert not [
        event
        for event in one.events()
        if event["kind"] == "note" and event["level"] == "warning" and "computes differently" in event["text"]
    ]
    if method == "lora":
        assert plan["loss"] == "chunked"
        assert plan["trainable"] == METHODS["lora"]().trainable(model.facts(folder)) + 3 * 32 * (1 if tied else 2)

    found = resolve(one.id)
    loaded_model = LoadedModels("cpu", torch.float32).load(found)
    ids = loaded_model.encoder.tokenizer.encode("<|im_start|>user\nHello<tool><|im_end|>", add_special_tokens=False).ids
    assert set(added.ids.values()) <= set(ids)
    wanted = logits(loaded_model.model, torch.tensor([ids]))
    merged(found, tmp_path / "out")
    alone, words = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    assert words.encode("<|im_start|>user\nHello<tool><|im_end|>", add_special_tokens=False) == ids
    assert words.decode(ids, skip_special_tokens=True) == "user\nHello"
    assert alone.config.vocab_size == added.size
    assert alone.config.tie_word_embeddings is tied
    assert alone.generation_config.eos_token_id[0] == added.ids["<|im_end|>"]
    torch.testing.assert_close(logits(alone, torch.tensor([ids])), wanted, atol=1e-4, rtol=1e-4)
    if method == "full":
        return
    theirs = AutoPeftModelForCausalLM.from_pretrained(one.result, dtype=torch.float32).eval()
    torch.testing.assert_close(logits(theirs, torch.tensor([ids])), wanted, atol=1e-4, rtol=1e-4)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if not spare:
        plain.resize_token_embeddings(len(AutoTokenizer.from_pretrained(one.result)))
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(plain, one.result).eval(), torch.tensor([ids])), wanted, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text", "phi3"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_chunked_loss_and_its_gradients_are_transformers_own(kind: str, packed: bool, tmp_path: Path) -> None:
    """Rows of a tied and of an untied table: against full logits of peft's own wrappers and torch's cross entropy."""
    folder = base(tmp_path / "base", kind, tied=kind != "phi3")
    method = METHODS["lora"](dropout=0)
    torch.manual_seed(0)
    tuned = method.wrap(token_rows.add_rows(method.load(folder, torch.float32), new_tokens.assign_ids(folder, MARKS)))
    facts = estimate.grown(model.facts(folder), order(folder, tmp_path))
    assert method.trainable(facts) == sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape) * 0.1)
    new = list(new_tokens.assign_ids(folder, MARKS).ids.values())
    given = [
        {"input_ids": [5, new[0], 7, new[2], 9, new[1]], "labels": [-100, new[0], 7, new[2], -100, new[1]]},
        {"input_ids": [new[1], 8, 9], "labels": [-100, 8, 9]},
    ]
    found = sum(
        loss(tuned.eval(), micro_batch, "chunked", torch.float32) for micro_batch in [collate(given, packed=packed)]
    )
    found.backward()
    mine = {name: weight.grad.clone() for name, weight in tuned.named_parameters() if weight.requires_grad}
    tuned.zero_grad()
    wanted = sum(
        torch.nn.functional.cross_entropy(
            tuned(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1],
            torch.tensor(row["labels"][1:]),
            reduction="sum",
        )
        for row in given
    )
    wanted.backward()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    for name, weight in tuned.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(mine[name], weight.grad, rtol=1e-3, atol=1e-4, msg=name)
    assert any("trainable_tokens_delta" in name and mine[name].abs().sum(1).all() for name in mine)


@pytest.mark.parametrize("tied", [True, False])
def test_on_a_bf16_base_rows_are_trained_in_float32(tied: bool, tmp_path: Path) -> None:
    """Under autocast, as a card trains: near the loss in float32, a gradient for every row."""
    folder, method = base(tmp_path / "base", tied=tied), METHODS["lora"](dropout=0)
    added = new_tokens.assign_ids(folder, MARKS)
    new = list(added.ids.values())
    given = [
        collate(
            [{"input_ids": [5, new[0], 7, new[2], 9, new[1], 4], "labels": [-100, new[0], 7, new[2], 9, new[1], 4]}],
            packed=False,
        )
    ]
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        tuned = method.wrap(token_rows.add_rows(method.load(folder, dtype), added)).eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            lost = loss(tuned, given[0], "chunked", dtype)
        lost.backward()
        rows = [weight for name, weight in tuned.named_parameters() if "trainable_tokens_delta" in name]
        assert len(rows) == (1 if tied else 2)
        assert all(row.dtype == torch.float32 and row.grad.abs().sum(1).all() for row in rows)
        found.append(lost.item())
    assert found[0] == pytest.approx(found[1], rel=2e-2)


@pytest.mark.parametrize(
    "method",
    [{"name": "lora"}, {"name": "full"}, {"name": "qlora"}, {"name": "lora", "init": "pissa", "rank": 4}],
    ids=str,
)
def test_resumed_is_identical(method: dict[str, Any], home: Path, tmp_path: Path) -> None:
    folder, data = base(tmp_path / "base"), rows(tmp_path / "rows.json")
    whole, cut = (run.create(order(folder, data, method)) for _ in range(2))
    assert main(whole) == 0
    shutil.copytree(whole.checkpoints / "checkpoint-4", cut.checkpoints / "checkpoint-4")
    assert main(cut) == 0
    one, other = (next(iter(run.result.glob("*.safetensors"))).read_bytes() for run in (whole, cut))
    assert one == other


def test_others_on_the_same_base_keep_its_table(home: Path, tmp_path: Path) -> None:
    """One server: the base, a LoRA with new tokens, a checkpoint of it, and another LoRA answer as each alone."""
    folder, data = base(tmp_path / "base", spare=2), rows(tmp_path / "rows.json")
    grown = run.create(order(folder, data))
    plain = run.create(order(folder, data).with_changes(data={"new_tokens": []}))
    assert main(grown) == main(plain) == 0
    names = ["base:" + str(folder), grown.id, f"{grown.id}@checkpoint-4", plain.id]
    ids = torch.tensor([[5, 6, 7, 8]])
    alone = [logits(LoadedModels("cpu", torch.float32).load(resolve(name)).model, ids) for name in names]
    together = LoadedModels("cpu", torch.float32)
    for name in names:
        together.load(resolve(name))
    for name, wanted in zip(names, alone, strict=True):
        assert torch.equal(logits(together.by_name[name].model, ids), wanted), name
    assert [one.shape[-1] for one in alone] == [
        model.facts(folder).rows,
        *[model.facts(folder).rows + 1] * 2,
        model.facts(folder).rows,
    ]
    words, same, fewer = (together.by_name[name].encoder.tokenizer for name in names[1:])
    assert words.get_vocab_size() == same.get_vocab_size() > fewer.get_vocab_size()
    tool = words.token_to_id("<tool>")
    for name in names[1:3]:
        assert together.by_name[name].decode([tool]) == "<tool>", "a token that was trained as part of answers is shown"


@pytest.mark.parametrize(("tied", "spare", "method"), [(True, 0, "lora"), (False, SPARE, "full"), (False, 0, "lora")])
def test_the_hint_leads_to_a_model_that_stops_everywhere(
    tied: bool, spare: int, method: str, home: Path, tmp_path: Path
) -> None:
    """A base without chat tokens under ChatML: what the warning names is ordered; merged model and GGUF then end a turn
    with one token.
    """
    folder, data = base(tmp_path / "base", tied=tied, spare=spare), rows(tmp_path / "rows.json")
    first = order(folder, data, method, max_steps=60, save_every=60, eval_every=60, learning_rate=1e-2).with_changes(
        data={"new_tokens": []}
    )
    told = Encoder.from_order(first.data, folder).end_of_turn_warning()
    named = json.loads(told.partition("data.new_tokens: ")[2].removesuffix("."))
    assert named == ["<|im_start|>", "<|im_end|>"]
    followed = first.with_changes(data={"new_tokens": named})
    assert not Encoder.from_order(followed.data, folder).end_of_turn_warning()
    assert Encoder.from_order(followed.with_changes(data={"template": "auto"}).data, folder).template.name == "chatml"
    one = run.create(followed)
    assert main(one) == 0

    found = resolve(one.id)
    ours = answers(LoadedModels("cpu", torch.float32).load(found), [{"messages": QUESTION}], 40)[0]
    if tied or method == "full":  # a frozen random head of its own learns too little
        assert (ours["text"], ours["finish"]) == ("Paris. <tool>", "stop")
    merged(found, tmp_path / "out", "f32")
    words, alone = (
        AutoTokenizer.from_pretrained(tmp_path / "out"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32),
    )
    prompt = words.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
        "input_ids"
    ]
    with torch.inference_mode():
        made = alone.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40)[
            0, prompt.shape[1] :
        ].tolist()
    assert made == ours["ids"] + [words.convert_tokens_to_ids("<|im_end|>")] * (ours["finish"] == "stop")
    pytest.importorskip("xllamacpp")
    gguf_file.write(found, tmp_path / "out.gguf", "f32", hf_files.plain_template(found.template.text))
    for reader in readers(tmp_path / "out.gguf", 256):
        theirs = reader.answer(QUESTION, 40)
        assert (theirs["prompt"], theirs["ids"], theirs["finish"]) == (
            prompt[0].tolist(),
            ours["ids"],
            ours["finish"],
        ), reader.name
        assert reader.ids("<|im_start|>user 12 今天") == words.encode(
            "<|im_start|>user 12 今天", add_special_tokens=False
        )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, SPARE])
def test_made_elsewhere_with_trained_rows(tied: bool, spare: int, home: Path, tmp_path: Path) -> None:
    """peft's trainable_token_indices with its own tokenizer: the chat and the merged folder compute what peft does."""
    folder, made = base(tmp_path / "base", tied=tied, spare=spare), tmp_path / "made"
    words = AutoTokenizer.from_pretrained(folder)
    words.add_special_tokens({"additional_special_tokens": ["<a>", "<b>"]})
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if not spare:
        plain.resize_token_embeddings(len(words))
    new = words.convert_tokens_to_ids(["<a>", "<b>"])
    named = new if tied else {"embed_tokens": new, "lm_head": new}
    tuned = get_peft_model(
        plain, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, trainable_token_indices=named)
    ).eval()
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "trainable_tokens_delta" in name:
                weight.add_(torch.randn(weight.shape) * 0.3)
    tuned.save_pretrained(made, save_embedding_layers=False)
    words.save_pretrained(made)
    settings = json.loads((made / "adapter_config.json").read_text())
    (made / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(folder)}))
    ids = torch.tensor([[5, new[0], 7, new[1]]])
    wanted = logits(tuned, ids)
    found = resolve(str(made))
    loaded_model = LoadedModels("cpu", torch.float32).load(found)
    assert loaded_model.encoder.tokenizer.encode("<b>").ids == [new[1]]
    torch.testing.assert_close(logits(loaded_model.model, ids), wanted, atol=1e-4, rtol=1e-4)
    merged(found, tmp_path / "out")
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32), ids),
        wanted,
        atol=1e-4,
        rtol=1e-4,
    )
    if not spare:  # rows for the second token alone: the first has none
        indices = [new[1]] if tied else {"embed_tokens": [new[1]], "lm_head": [new[1]]}
        (made / "adapter_config.json").write_text(
            json.dumps({**settings, "base_model_name_or_path": str(folder), "trainable_token_indices": indices})
        )
        with pytest.raises(ModelError, match="the words that were added have none"):
            resolve(str(made))


@pytest.mark.parametrize(
    ("method", "tied", "dtype"),
    [
        ({"name": "qlora"}, True, torch.float32),
        ({"name": "qlora"}, False, torch.bfloat16),
        ({"name": "qlora", "quantization": "int8"}, False, torch.float16),
        ({"name": "lora"}, True, torch.bfloat16),
        ({"name": "lora"}, False, torch.float16),
        ({"name": "full"}, True, torch.bfloat16),
    ],
    ids=str,
)
def test_a_quantized_and_a_16_bit_base_are_merged_with_the_new_rows(
    method: dict[str, Any], tied: bool, dtype: torch.dtype, home: Path, tmp_path: Path
) -> None:
    """The export against plain peft on the stored base: QLoRA's rows and matrices go into the base at full width, and
    each weight is rounded once to the base's dtype.
    """
    folder, data = base(tmp_path / "base", tied=tied), rows(tmp_path / "rows.json")
    AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(folder)
    one = run.create(order(folder, data, method))
    assert main(one) == 0
    found, added = resolve(one.id), new_tokens.assign_ids(folder, MARKS)
    merged(found, tmp_path / "out")
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (stored.dtype, stored.config.vocab_size) == (dtype, added.size)
    assert stored.config.tie_word_embeddings is tied
    if method["name"] == "full":
        theirs = AutoModelForCausalLM.from_pretrained(one.result, dtype=torch.float32)
    else:
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        plain.resize_token_embeddings(added.size)
        theirs = PeftModel.from_pretrained(plain, one.result).merge_and_unload()
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(stored.state_dict()[name], weight.to(dtype), msg=name)
    assert ("squeezed" in folders.refuse(found, "gguf")) is method["name"].startswith("q")


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_is_merged_as_it_answers(tied: bool, home: Path, tmp_path: Path) -> None:
    folder, data = base(tmp_path / "base", tied=tied), rows(tmp_path / "rows.json")
    one = run.create(order(folder, data))
    assert main(one) == 0
    found = resolve(f"{one.id}@checkpoint-4")
    ids = torch.tensor([[5, new_tokens.assign_ids(folder, MARKS).ids["<tool>"], 7]])
    wanted = logits(LoadedModels("cpu", torch.float32).load(found).model, ids)
    merged(found, tmp_path / "out")
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    torch.testing.assert_close(logits(alone, ids), wanted, atol=1e-4, rtol=1e-4)
    assert alone.config.tie_word_embeddings is tied


@pytest.mark.parametrize("knob", [["embed_tokens", "lm_head"], ["lm_head"]])
def test_tables_trained_whole_need_no_rows_beside(knob: list[str], home: Path, tmp_path: Path) -> None:
    folder, data = base(tmp_path / "base", tied=False), rows(tmp_path / "rows.json")
    one = run.create(order(folder, data, {"name": "lora", "modules_to_save": knob}))
    assert main(one) == 0
    plan = next(event for event in one.events() if event["kind"] == "plan")
    facts = estimate.grown(model.facts(folder), one.config)
    assert plan["trainable"] == one.config.method.trainable(facts)
    ids = torch.tensor([[5, new_tokens.assign_ids(folder, MARKS).ids["<tool>"], 7]])
    wanted = logits(LoadedModels("cpu", torch.float32).load(resolve(one.id)).model, ids)
    merged(resolve(one.id), tmp_path / "out")
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32), ids),
        wanted,
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"new_tokens": [" "]}}, "more than blanks"),
        ({"data": {"new_tokens": [""]}}, "more than blanks"),
        ({"data": {"new_tokens": ["<a>", "<a>"]}}, "stands there twice"),
        ({"data": {"new_tokens": ["x" * 101]}}, "at most 100 characters"),
        ({"data": {"new_tokens": "<a>"}}, "should be a list"),
        *(({"method": {"name": name}}, "never be learnt") for name in METHODS if name not in TRAINING),
        ({"method": {"name": "full", "freeze_embeddings": True}}, "never be learnt"),
        ({"method": {"name": "full", "last_layers": 1}}, "never be learnt"),
        ({"method": {"name": "lora", "modules_to_save": ["lm_head"]}}, "no rows for new tokens"),
        ({"method": {"name": "lora", "init": "eva"}}, "Start eva"),
        ({"training": {"sharding": "fsdp", "devices": 2}}, "fsdp"),
    ],
    ids=lambda one: str(one)[:60],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str, home: Path, tmp_path: Path) -> None:
    folder, data = base(tmp_path / "base"), rows(tmp_path / "rows.json")
    with pytest.raises(OrderError, match=words):
        preflight.check(order(folder, data).with_changes(**changes))


def test_a_head_with_a_bias_is_refused() -> None:
    facts = model.from_config(
        {
            "model_type": "phi",
            "hidden_size": 8,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "vocab_size": 9,
            "tie_word_embeddings": False,
        },
        {"lm_head.bias": Tensor(dtype="F32", shape=(9,))},
    )
    with pytest.raises(OrderError, match="head has a bias"):
        METHODS["lora"]().refuse_tokens(facts)


def test_what_is_one_token_already_stays(home: Path, tmp_path: Path) -> None:
    """Told with its id, nothing added, the same ids and the same cache; a token that the tokenizer cannot know is not
    taken for one.
    """
    folder, data = base(tmp_path / "base"), rows(tmp_path / "rows.json")
    known = order(folder, data).with_changes(data={"new_tokens": ["<|endoftext|>", "user", "🦥"]})
    added = new_tokens.assign_ids(folder, known.data.new_tokens)
    assert set(added.known) == {"<|endoftext|>", "user"}
    assert set(added.ids) == {"🦥"}
    encoder = Encoder.from_order(known.data, folder)
    assert "'<|endoftext|>' (0)" in encoder.new_tokens_note()
    assert encoder.tokenizer.encode("a🦥b", add_special_tokens=False).ids[1] == added.ids["🦥"]
    assert re.search("[\u4e00-\u9fff]", translate(encoder.new_tokens_note(), "zh"))
    nothing = Encoder.from_order(known.with_changes(data={"new_tokens": ["user"]}).data, folder)
    assert nothing.tokenizer_folder == folder
    assert new_tokens.assign_ids(folder, ["user"]).rows == ()


def test_encoded_data_is_kept_apart(home: Path, tmp_path: Path) -> None:
    folder, file = base(tmp_path / "base"), rows(tmp_path / "rows.json")
    with_them, without = (order(folder, file).with_changes(data={"new_tokens": texts}) for texts in (["<tool>"], []))
    one, other = (data.prepare(each.data, Encoder.from_order(each.data, folder)) for each in (with_them, without))
    assert one.fingerprint != other.fingerprint
    tool = new_tokens.assign_ids(folder, ["<tool>"]).ids["<tool>"]
    assert any(tool in row["input_ids"] for row in one.train)
    assert not any(tool in row["input_ids"] for row in other.train)


def test_the_memory_estimate_knows_the_rows(home: Path, tmp_path: Path) -> None:
    folder, data = base(tmp_path / "base", tied=False), rows(tmp_path / "rows.json")
    ordered = order(folder, data)
    without = ordered.with_changes(data={"new_tokens": []})
    mine, plain = (estimate.estimate(model.facts(folder), one, device.cpu()) for one in (ordered, without))
    assert mine.trainable == plain.trainable + 2 * 3 * 32
    assert mine.total > plain.total
    assert json.loads(json.dumps(config.parse(ordered.to_yaml()).model_dump(mode="json"))) == ordered.model_dump(
        mode="json"
    )


def test_cards_and_folders_name_them(home: Path, tmp_path: Path) -> None:
    folder, file = base(tmp_path / "base"), rows(tmp_path / "rows.json")
    one = run.create(order(folder, file))
    assert main(one) == 0
    told = folders.export(one.id, "adapter", tmp_path / "out.zip", proven=False)
    with zipfile.ZipFile(told["path"]) as packed:
        packed.extractall(tmp_path / "out")
    for text in (card.card(one), (tmp_path / "out" / "README.md").read_text()):
        assert "`<tool>`" in text
    assert "&lt;tool&gt;" in report.report(one)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**manifest, "base": str(folder)}))
    ids = torch.tensor([[5, manifest["new_tokens"]["<tool>"], 7]])
    alone, ours = (
        logits(LoadedModels("cpu", torch.float32).load(resolve(name)).model, ids)
        for name in (str(tmp_path / "out"), one.id)
    )
    assert torch.equal(alone, ours)


def test_rows_are_not_combined(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "trainable_token_indices": {"model.embed_tokens": [9]}})
    )
    with pytest.raises(ModelError, match="rows for new tokens, which peft does not combine"):
        combine.combined(None, [tmp_path, tmp_path], None, 0)


def test_new_tokens_that_no_row_holds_are_named(home: Path, tmp_path: Path) -> None:
    """In inspect, in the estimate and before the first step; those that the template writes are held by every row."""
    folder, file = base(tmp_path / "base"), rows(tmp_path / "rows.json")
    asked = ["inspect", str(file), "--model", str(folder), "--template", "chatml"]
    marks = [word for mark in (*MARKS, "<never>") for word in ("--new-token", mark)]
    [told] = commands.look(parser("inspect").parse_args([*asked, *marks]))["cautions"]
    assert "No row to train on holds '<never>' of data.new_tokens" in told
    assert translate(told, "zh") != told
    made = order(folder, file, max_steps=1).with_changes(data={"new_tokens": [*MARKS, "<never>"]})
    assert estimating.statistics(made)[1]["unseen_tokens"] == ["<never>"]
    assert measure.lengths(made, data.read(str(file))).unseen == ("<never>",)
    assert estimating.statistics(order(folder, file))[1]["unseen_tokens"] == []
    trained = run.create(made)
    assert main(trained) == 0
    assert told in [event["text"] for event in trained.events() if event["kind"] == "note"]
