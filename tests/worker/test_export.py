"""Merging and exporting on a tiny model: the same logits, files that read back, a proof that says what differs."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio import config, run, template
from studio.errors import ExportError
from studio.export import card, readme
from studio.export import folders as export
from studio.export.hf_files import plain_template
from studio.methods import METHODS
from studio.run import Run
from studio.talk.reference import ModelReference, resolve
from studio.worker.export import merged
from studio.worker.gguf_file import permuted
from studio.worker.merge import merge, rounded, weights
from tests import families
from tests.methods import architectures
from tests.readers import by_studio


def trained(model: Path, name: str = "lora", seed: int = 1, **knobs) -> Run:
    """A run whose result is an adapter with weights that matter, saved as the trainer saves it."""
    from transformers import AutoTokenizer

    order = config.build({"model": str(model), "data": {"train": "sample"}, "method": {"name": name, **knobs}})
    one = run.create(order)
    wrapped = order.method.wrap(METHODS["full"]().load(model, torch.float32))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=random) * 0.2)
    order.method.save_result(wrapped, one.result)
    AutoTokenizer.from_pretrained(model).save_pretrained(one.result)
    (one.result / "manifest.json").write_text(
        json.dumps(
            {
                "base": str(model),
                "model": {"source": str(model)},
                "template": "model",
                "method": order.method.model_dump(mode="json"),
                "stop": ["<|im_end|>"],
            }
        )
    )
    return one


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids).logits


@pytest.mark.parametrize(
    ("name", "knobs"),
    [("lora", {}), ("lora", {"rslora": True, "target_modules": "q-v"}), ("lora", {"dora": True}), ("ia3", {})],
)
def test_merged_model_computes_the_same(home: Path, tiny_model: Path, tmp_path: Path, name: str, knobs: dict) -> None:
    found = resolve(trained(tiny_model, name, **knobs).id)
    base = METHODS["full"]().load(tiny_model, torch.float32)
    ids = torch.arange(5, 25)[None]
    before = logits(base, ids)
    plain = METHODS["full"]().load(tiny_model, torch.float32)
    plain.load_state_dict(dict(weights(found)), strict=False)
    wanted = logits(found.method.attach(base, found.result), ids)
    assert torch.allclose(logits(plain, ids), wanted, atol=1e-4)
    assert not torch.allclose(before, wanted, atol=1e-2)


@pytest.mark.parametrize("kind", families.MERGED)
def test_every_family_merges_to_what_was_trained(kind: str, home: Path, tmp_path: Path) -> None:
    """transformers reads the merged folder and computes what peft computes on the base."""
    base = architectures.write(tmp_path / "base", kind)
    found = resolve(trained(base).id)
    ids = torch.arange(5, 25)[None]
    wanted = logits(found.method.attach(METHODS["full"]().load(base, torch.float32), found.result), ids)
    merged(found, tmp_path / "out")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    torch.testing.assert_close(logits(whole, ids), wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-3)
    assert (logits(METHODS["full"]().load(base, torch.float32), ids) - wanted).abs().max() > 1e-2


def test_what_cannot_be_merged_says_why(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    one = trained(tiny_model, "prefix")
    for kind in ("merged", "gguf", "ollama"):
        with pytest.raises(ExportError, match="cannot be merged. It changes what the model reads"):
            export.export(one.id, kind, tmp_path / "out")
    assert not list(tmp_path.glob("*out*")), "nothing was begun"
    assert export.export(one.id, "adapter", tmp_path / "out.zip", proven=False)["bytes"] > 0


def test_target_that_stands_is_left_alone(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out.zip").write_text("mine")
    with pytest.raises(ExportError, match="stands there already"):
        export.export(trained(tiny_model).id, "adapter", tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_text() == "mine"


def test_adapter_zip_holds_no_path_of_this_computer(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    answer = export.export(trained(tiny_model).id, "adapter", tmp_path / "out.zip", proven=False)
    with zipfile.ZipFile(answer["path"]) as packed:
        config_file = json.loads(packed.read("adapter_config.json"))
        assert config_file["base_model_name_or_path"] == tiny_model.name
        assert {"adapter_model.safetensors", "README.md", "chat_template.jinja", "tokenizer.json"} <= set(
            packed.namelist()
        )


@pytest.mark.parametrize(
    ("name", "knobs", "peft", "vllm"),
    [
        ("lora", {}, True, "vllm serve"),
        ("lora", {"dora": True}, True, "merged for it"),
        ("lora", {"modules_to_save": ["lm_head"]}, True, "merged for it"),
        ("ia3", {}, True, "merged for it"),
        ("prompt", {}, True, "does not load adapters of this kind."),
        ("adapter", {}, False, ""),
    ],
)
def test_an_adapters_readme_names_only_programs_that_load_its_kind(
    name: str, knobs: dict[str, Any], peft: bool, vllm: str, tmp_path: Path
) -> None:
    """It showed vLLM's command for all, and peft's lines below "is read by Fine-Tuning Studio only"."""
    told = readme.adapter(ModelReference("one", tmp_path, template.load("chatml"), method=METHODS[name](**knobs)))
    assert ("AutoPeftModelForCausalLM" in told) == peft
    assert ("vllm serve" in told) == (vllm == "vllm serve")
    assert vllm in told
    assert "Put its folder" not in readme.usage("starter", METHODS[name](**knobs), 0)


@pytest.mark.parametrize(("name", "kind"), [("lora", "adapter"), ("prefix", "adapter"), ("lora", "merged")])
def test_the_lines_of_a_readme_answer_as_the_studio_does(
    name: str,
    kind: str,
    home: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Run as they stand, in the folder: transformers' pipeline drew its answers by chance. The card has them too."""
    one, folder = trained(tiny_model, name), tmp_path / "out"
    if kind == "adapter":
        with zipfile.ZipFile(export.export(one.id, kind, tmp_path / "out.zip", proven=False)["path"]) as packed:
            packed.extractall(folder)
        (folder / tiny_model.name).symlink_to(tiny_model)
    else:
        merged(resolve(one.id), folder)
        (folder / "README.md").write_text(readme.merged(resolve(one.id)))
    (lines,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert (lines in card.card(one)) == (kind == "adapter")
    placed = f"Put its folder `{tiny_model.name}` beside these files first."  # no Hub has it
    assert (placed in (folder / "README.md").read_text()) == (kind == "adapter")
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(lines, {})  # what a user copies
    half = "\ufffd\n"  # the character that the 200th token begins
    assert capsys.readouterr().out.rstrip(half) == by_studio(one.id, ["Hello!"], 200)[0]["text"].rstrip(half)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("own", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)]
)
def test_merged_in_the_bases_type_or_another(
    home: Path, tiny_model: Path, tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    """The files, the config that names their type, and what transformers makes of both."""
    base = tmp_path / "base"
    METHODS["full"]().load(tiny_model, torch.bfloat16).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, base)
    found = resolve(trained(base).id)
    merged(found, tmp_path / "out", precision)
    loaded = METHODS["full"]().load(tmp_path / "out", "auto")
    assert {weight.dtype for weight in loaded.parameters()} == {dtype}
    exact = dict(weights(found))
    assert all(
        (weight.float() - exact[name]).norm() < 0.01 * exact[name].norm()
        for name, weight in loaded.named_parameters()
        if name in exact
    )


def test_what_float16_cannot_hold_is_refused() -> None:
    with pytest.raises(ExportError, match="too large for float16"):
        rounded(torch.tensor([1e5]), torch.float16)


def test_merge_in_shards(home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import safe_open

    monkeypatch.setattr("studio.worker.merge.SHARD", 20_000)
    found = resolve(trained(tiny_model).id)
    merge(found, tmp_path, torch.float32)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 2
    for name, weight in weights(found):
        with safe_open(tmp_path / index[name], "pt") as stored:
            assert torch.equal(stored.get_tensor(name), weight)


def test_rounded_once_to_the_nearest() -> None:
    """As numpy and every converter rounds: half the last place at most, and nothing drawn by chance."""
    weight = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    made = rounded(weight, torch.bfloat16)
    assert torch.equal(made, weight.to(torch.bfloat16))
    assert ((made.float() - weight).abs() <= weight.abs() * 2**-8).all()


def test_q_and_k_are_reordered_as_llama_cpp_has_them() -> None:
    """Row 2i of a head is transformers' row i, row 2i + 1 row i + half (convert_hf_to_gguf.py, LlamaModel.permute)."""
    rows = torch.arange(16.0)[:, None]
    assert permuted(rows, 2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_template_without_generation_tags_writes_the_same() -> None:
    from studio import template

    said = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": " Hi. "}]
    for name in template.names():
        used = template.load(name)
        plain = plain_template(used.text)
        assert "generation %" not in plain
        assert template.Template(name, plain, used.special).render(said).text == used.render(said).text
