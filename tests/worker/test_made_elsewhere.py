"""Adapters and bases made by other programs: they compute what peft and transformers compute, or say why not."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, BertForMaskedLM

from studio import preflight, queue
from studio.__main__ import parser
from studio.base.shards import weight_files
from studio.commands import estimate
from studio.commands import queue as commands
from studio.config import build
from studio.errors import DataError, ExportError, ModelError, OrderError, RunError
from studio.loading import load_base
from studio.methods import METHODS
from studio.model import facts
from studio.runs import continuation, goal
from studio.talk.reference import resolve
from studio.worker.export import merged
from studio.worker.loaded import LoadedModels
from studio.worker.sampling import Sampling, choose
from tests import tiny
from tests.methods import architectures
from tests.worker.carrying import carry, order, rows
from tests.worker.test_export import logits, trained

IDS = torch.arange(5, 25)[None]
TARGETS = ["q_proj", "v_proj", "down_proj"]


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def made_elsewhere(base: Path, out: Path, config: Any) -> torch.Tensor:
    """An adapter saved by peft alone, with weights that matter; returns its logits."""
    torch.manual_seed(3)
    tuned = peft.get_peft_model(plain(base), config).eval()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=random) * 0.1)
    tuned.save_pretrained(out)
    return logits(tuned, IDS)[:, -IDS.shape[1] :]


def lora(**knobs: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**{"target_modules": TARGETS, "task_type": "CAUSAL_LM"} | knobs)


@pytest.mark.parametrize(
    "knobs",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 64}},
        {"target_modules": [], "target_parameters": ["q_proj.weight"]},
        {"target_modules": [*TARGETS, "embed_tokens", "lm_head"]},
    ],
    ids=str,
)
def test_an_adapter_answers_and_merges_as_in_peft(knobs: dict, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """PiSSA and OLoRA take a part out of the base: the base beside it stays itself, and the merge takes it out too."""
    expected = made_elsewhere(tiny_model, tmp_path / "adapter", lora(**knobs))
    models = LoadedModels("cpu", torch.float32)
    base = models.load(resolve(f"base:{tiny_model}")).model
    before = logits(base, IDS)
    adapter = resolve(str(tmp_path / "adapter"))
    assert torch.allclose(logits(models.load(adapter).model, IDS), expected, atol=1e-5)
    assert torch.equal(logits(base, IDS), before)
    merged(adapter, tmp_path / "out")
    assert torch.allclose(logits(plain(tmp_path / "out"), IDS), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [peft.PrefixTuningConfig, peft.PromptTuningConfig])
def test_virtual_tokens_made_elsewhere_take_context(kind: Any, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    made_elsewhere(tiny_model, tmp_path / "adapter", kind(num_virtual_tokens=7, task_type="CAUSAL_LM"))
    found = resolve(str(tmp_path / "adapter"))
    assert LoadedModels("cpu", torch.float32).load(found).context_length == 512 - 7
    with pytest.raises(ExportError, match="cannot be merged"):
        merged(found, tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (lora(lora_bias=True), "peft cannot merge this LORA adapter"),
        (lora(layer_replication=[[0, 2], [1, 2]]), "would have 3, and its base has 2"),
        (peft.AdaptionPromptConfig(adapter_layers=1, adapter_len=4, task_type="CAUSAL_LM"), "peft cannot merge"),
    ],
    ids=["lora_bias", "layer_replication", "adaption_prompt"],
)
def test_what_peft_cannot_merge_says_why(config: Any, words: str, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    made_elsewhere(tiny_model, tmp_path / "adapter", config)
    with pytest.raises(ExportError, match=words):
        merged(resolve(str(tmp_path / "adapter")), tmp_path / "out")


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    return edit


STRANGE_LAYER = "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_config(task_type="SEQ_CLS"), "writes no text"),
        (_config(init_lora_weights="pissa_niter_4"), "cannot be made again"),
        (_config(base_model_name_or_path=None), "does not say which base"),
        (_tensors(lambda tensors: tensors.pop(sorted(tensors)[0])), "does not fit this base"),
        (_tensors(lambda tensors: tensors.update({STRANGE_LAYER: torch.zeros(8, 32)})), "does not fit this base"),
        (lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"), "pickle"),
        (_config(r=4), "cannot be loaded"),
    ],
    ids=["classifier", "random start", "no base", "lacks a tensor", "has one too many", "pickle", "other rank"],
)
def test_an_adapter_that_does_not_fit_is_refused(
    change: Callable[[Path], None], words: str, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """peft only warns of what is missing, and ignores what is left over."""
    made_elsewhere(tiny_model, tmp_path / "adapter", lora())
    change(tmp_path / "adapter")
    with pytest.raises(ModelError, match=words):
        LoadedModels("cpu", torch.float32).load(resolve(str(tmp_path / "adapter")))


# -- bases


def _edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "method", "words"),
    [
        ({"tie_word_embeddings": False, "architectures": ["LlamaForSequenceClassification"]}, "lora", "no language"),
        ({"model_type": "bert"}, "lora", "reads a text in both directions"),
        ({"is_encoder_decoder": True}, "lora", "an encoder with a decoder"),
        ({"model_type": "bark"}, "lora", "transformers has no causal language model of this type"),
        ({"model_type": "chatglm", "auto_map": {"AutoModel": "m.M"}}, "lora", "Python code of its own"),
        ({"model_type": "gemma4_assistant"}, "lora", "a draft model"),
        ({"model_type": "gemma3n"}, "lora", "A gemma3n model needs timm"),
        ({"num_hidden_layers": 1}, "lora", "says 1 layers, and the weight files hold 2"),
        ({"num_hidden_layers": 3}, "lora", "says 3 layers, and the weight files hold 2"),
        ({"hidden_size_per_layer_input": 8}, "prompt", "no tokens"),
        ({"num_kv_shared_layers": 1}, "prefix", "of the 2 layers of this llama model some have none"),
        ({"quantization_config": {"quant_method": "fp8"}}, "lora", "quantized .fp8."),
        ({"quantization_config": {"quant_method": "gptq"}}, "lora", "gptqmodel"),
        ({"quantization_config": {"load_in_4bit": True}}, "lora", "the weight files hold them plainly, in float32"),
        ({"quantization_config": {"quant_method": "gptq"}}, "full", "cannot be trained themselves"),
    ],
    ids=[
        *("classifier", "encoder", "encoder-decoder", "sound", "code", "draft", "package"),
        *("fewer layers", "more layers"),
        *("a table a layer", "shared keys", "fp8", "gptq", "plain weights", "full on a table"),
    ],
)
def test_a_base_that_cannot_be_trained_is_refused_at_once(
    changes: dict,
    method: str,
    words: str,
    home: Path,
    tiny_model: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # not installed
    shutil.copytree(tiny_model, tmp_path / "base")
    _edit(tmp_path / "base", **changes)
    config = build({"model": str(tmp_path / "base"), "data": {"train": str(tiny_data)}, "method": {"name": method}})
    with pytest.raises((ModelError, OrderError), match=words):
        preflight.check(config)


def test_no_weight_of_a_base_starts_at_random(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="start at random: model.layers.1.mlp.up_proj"):
        load_base(tmp_path / "base", torch.float32)
    shutil.copy(tiny_model / "model.safetensors", tmp_path / "base" / "model.safetensors")
    _edit(tmp_path / "base", intermediate_size=128)
    with pytest.raises(ModelError, match="other shapes than its config.json"):
        load_base(tmp_path / "base", torch.float32)
    _edit(tmp_path / "base", intermediate_size=64, num_attention_heads=5)
    with pytest.raises(ModelError, match="not a multiple of the number of attention heads"):
        load_base(tmp_path / "base", torch.float32)
    _edit(tmp_path / "base", num_attention_heads=4, rope_parameters={"rope_type": "spiral", "factor": 2.0})
    with pytest.raises(ModelError, match="cannot be loaded: transformers does not find 'spiral'"):
        load_base(tmp_path / "base", torch.float32)


def test_an_estimate_refuses_what_never_trains(tiny_model: Path, tiny_data: Path, home: Path, tmp_path: Path) -> None:
    def estimated(folder: Path) -> dict[str, Any]:
        order = tmp_path / "order.yaml"
        order.write_text(json.dumps({"model": str(folder), "data": {"train": str(tiny_data)}}))
        return estimate.run(parser("estimate").parse_args(["estimate", str(order)]))

    base = shutil.copytree(tiny_model, tmp_path / "base")
    (base / "tokenizer.json").unlink()
    assert "no tokenizer.json" in estimated(base)["data"]["error"]["message"]
    _edit(base, quantization_config={"quant_method": "fp8"})
    with pytest.raises(OrderError, match="quantized .fp8."):
        estimated(base)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="it is no model by itself"):
        estimated(tmp_path / "adapter")


def test_a_model_that_reads_ahead_is_refused_before_the_first_step(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder of a type that is in no list: its loss would fall to nothing by copying."""
    from studio.base import families

    monkeypatch.setattr(families, "ENCODERS", frozenset())
    torch.manual_seed(0)
    shape = architectures.SAME | {"intermediate_size": 64}
    folder = tmp_path / "bert"
    BertForMaskedLM(BertConfig(**shape)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, folder / name)
    events = carry(order(folder, rows(tmp_path / "rows.json", 8), "training.max_steps=1"))
    assert events[-1]["state"] == "failed"
    assert "reads ahead" in events[-1]["cause"]
    assert not [event for event in events if event["kind"] == "step"]


def test_a_run_goes_on_over_its_own_base_only(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """One tensor of the base is another when the run is extended."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    run = order(base, rows(tmp_path / "rows.json", 8), "training.max_steps=2", "data.eval=0")
    assert carry(run)[-1]["state"] == "finished"
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] *= 1.5
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="other weights than when it was trained"):
        commands.extend(Namespace(name=run.id, epochs=1.0))
    assert run.state() == "finished"
    events = carry(run)
    assert events[-1]["state"] == "failed"
    assert "other weights than when it was trained" in events[-1]["cause"]
    base.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="is no longer in"):
        resolve(run.id)


def test_a_run_whose_data_are_gone_or_others_stays_finished(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    file = rows(tmp_path / "rows.json", 8)
    run = order(tiny_model, file, "training.max_steps=1", "data.eval=0")
    assert carry(run)[-1]["state"] == "finished"
    before = file.read_text()
    file.write_text(before.replace("0", "9"))
    with pytest.raises(RunError, match="not those the checkpoint was made with"):
        goal.extend(run, 1.0)
    file.unlink()
    for way in (goal.extend, lambda run, epochs: queue.resume(run, {"training": {"epochs": epochs}})):
        with pytest.raises(DataError, match="There is no file .*rows.json"):
            way(run, 9.0)
    assert run.state() == "finished"
    assert not run.changes()
    file.write_text(json.dumps(json.loads(before), indent=3))  # other bytes, the same rows
    continuation.check(run, run.config)


def test_a_full_result_stops_as_trained_wherever_it_is_loaded(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The base's files name another end than the template writes; its advice on sampling comes along."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "temperature": 0.6, "do_sample": True}))
    run = order(base, rows(tmp_path / "rows.json", 8), "method.name=full", "training.max_steps=1", "data.eval=0")
    assert carry(run)[-1]["state"] == "finished"
    loaded = plain(run.result)
    assert loaded.generation_config.eos_token_id == [2, 0]
    assert loaded.generation_config.temperature == 0.6


@pytest.mark.parametrize("knobs", [{"dora": True}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_experts_keep_the_names_of_the_bases_files(knobs: dict, home: Path, tmp_path: Path) -> None:
    """In memory transformers 5 stacks them; other programs look for one tensor each."""
    base = architectures.write(tmp_path / "base", "mixtral")
    found = resolve(trained(base, **knobs).id)
    merged(found, tmp_path / "out")

    def names(folder: Path) -> set[str]:
        return {name for file in weight_files(folder) for name in safe_open(file, "pt").keys()}  # noqa: SIM118

    assert names(tmp_path / "out") == names(base)
    expected = logits(found.method.attach(METHODS["full"]().load(base, torch.float32), found.result), IDS)
    assert torch.allclose(logits(plain(tmp_path / "out"), IDS), expected, atol=1e-4 * float(expected.abs().max()))


def test_tensors_stored_in_float32_beside_bf16_stay(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    base, mixed = _with_float32_norms(tmp_path / "base", tiny_model)
    _edit(base, dtype="float16")  # the files count, whatever config.json says
    merged(resolve(trained(base).id), tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written["model.norm.weight"], mixed["model.norm.weight"])
    assert {name: weight.dtype for name, weight in written.items()} == {n: weight.dtype for n, weight in mixed.items()}


def _with_float32_norms(base: Path, tiny_model: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A base with matrices in bf16 and norms in float32, and its tensors."""
    shutil.copytree(tiny_model, base)
    tensors = load_file(base / "model.safetensors")
    mixed = {name: weight if "norm" in name else weight.bfloat16() for name, weight in tensors.items()}
    mixed["model.norm.weight"] = torch.linspace(0.9, 1.1, 32)
    save_file(mixed, base / "model.safetensors", metadata={"format": "pt"})
    _edit(base, dtype="bfloat16")
    return base, mixed


@pytest.mark.parametrize("stored", ["mixed", "float32"])
def test_full_fine_tuning_keeps_what_the_base_stores_in_float32(stored: str, tiny_model: Path, tmp_path: Path) -> None:
    """Loaded in bf16 for training: the weights start exact, and are written in the type of the base's files."""
    base = _with_float32_norms(tmp_path / "base", tiny_model)[0] if stored == "mixed" else tiny_model
    before = load_file(base / "model.safetensors")
    method = METHODS["full"]()
    method.save_result(method.wrap(method.load(base, torch.bfloat16)), tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert {name: weight.dtype for name, weight in after.items()} == {n: weight.dtype for n, weight in before.items()}


def test_the_repetition_penalty_is_transformers_own() -> None:
    """It looks at the prompt as well."""
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    scores = torch.randn(60, generator=torch.Generator().manual_seed(0))
    prompt, output = [1, 2, 3, int(scores.argmax())], [5, 6, 5]
    expected = RepetitionPenaltyLogitsProcessor(1.8)(torch.tensor([prompt + output]), scores[None].clone())
    assert choose(scores, Sampling(temperature=0, repetition_penalty=1.8), output, None, prompt) == expected.argmax()
    assert expected.argmax() != scores.argmax()


def test_a_type_without_a_language_model_is_told_in_words(tmp_path: Path) -> None:
    AutoConfig.for_model("distilbert").save_pretrained(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="no causal language model of this type"):
        load_base(tmp_path, torch.float32)


def test_a_method_that_peft_does_not_put_on_a_model_is_told_in_words(
    home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.base import families
    from studio.worker.base_model import wrap_base

    base = load_base(tiny_model, torch.float32)
    base.config.model_type = "mamba"  # peft refuses its out_proj, which we leave out
    base.model.layers[0].mlp.out_proj = torch.nn.Linear(4, 4)
    monkeypatch.setattr(families, "STATE_SPACE", frozenset())
    config = build({"data": {"train": "sample"}, "method": {"name": "lora"}})
    with pytest.raises(OrderError, match="LoRA cannot be put on this mamba model"):
        wrap_base(config, None, base)


@pytest.mark.parametrize("method", [{"name": "lora"}, {"name": "ia3"}, {"name": "adapter"}], ids=str)
@pytest.mark.parametrize("bits", [{"load_in_4bit": True}, {"load_in_8bit": True}], ids=str)
def test_a_base_of_bitsandbytes_is_counted_as_what_it_unpacks_to(
    bits: dict[str, bool], method: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import BitsAndBytesConfig

    base = tmp_path / "base"
    model = AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=BitsAndBytesConfig(**bits))
    model.save_pretrained(base)
    packed, plain_facts = facts(base), facts(tiny_model)
    assert packed.parameters == plain_facts.parameters
    assert packed.linears() == plain_facts.linears()
    chosen = build({"data": {"train": "sample"}, "method": method}).method
    trained = sum(weight.numel() for weight in chosen.wrap(model).parameters() if weight.requires_grad)
    assert chosen.trainable(packed) == trained
    assert chosen.footprint(packed).quantized == (("int8", False) if "load_in_8bit" in bits else ("fp4", False))


def test_an_adapter_on_4_bit_files_is_merged_into_what_they_unpack_to(home: Path, tmp_path: Path) -> None:
    """As multiplied with in training; added to the packed bytes it would be nonsense."""
    from transformers import BitsAndBytesConfig

    wide = tiny.write(tmp_path / "wide", hidden=64)  # bitsandbytes' product on a CPU takes whole blocks of 64
    base = shutil.copytree(wide, tmp_path / "base")
    (base / "model.safetensors").unlink()
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(wide, quantization_config=bits).save_pretrained(base)
    expected = made_elsewhere(base, tmp_path / "adapter", lora())
    merged(resolve(str(tmp_path / "adapter")), tmp_path / "out")
    assert torch.allclose(
        logits(plain(tmp_path / "out"), IDS), expected, atol=1e-2 * float(expected.abs().max())
    )  # bf16 products
