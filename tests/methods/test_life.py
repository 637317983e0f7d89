"""From training to chat, for every method and every knob.

Gradients, loss, save, attach, switch, disable, merge, generate.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.errors import ExportError, ModelError
from studio.method import Method
from studio.methods import METHODS
from tests import families
from tests.methods.variants import VARIANTS, made, title

IDS = torch.randint(3, 300, (2, 24), generator=torch.Generator().manual_seed(0))
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
PLAIN: dict[str, Any] = {}  # models trained without a knob, kept for the other knobs of the same method
RATES = {"full": 1e-2}  # eight steps on noise: what is tested is that learning happens, not how fast


def loss_of(model: Any) -> torch.Tensor:
    logits = model(**BATCH).logits[:, -IDS.shape[1] :]
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), IDS[:, 1:].flatten())


def trained(method: Method, folder: Path, steps: int = 8) -> tuple[Any, list[float]]:
    """A model after some steps on one batch, and the losses."""
    torch.manual_seed(1)
    model = method.wrap(method.load(folder, torch.float32))
    method.initialize(model, lambda: [BATCH])
    rate = 3 * RATES.get(method.name, method.learning_rate)
    optimizer = torch.optim.AdamW(
        method.parameter_groups(model, rate) or [weight for weight in model.parameters() if weight.requires_grad],
        lr=rate,
    )
    losses = []
    model.train()
    for _ in range(steps):
        loss = loss_of(model)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), losses


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(**BATCH).logits[:, -IDS.shape[1] :].float()


@pytest.mark.parametrize("variant", VARIANTS, ids=title)
def test_train_save_attach(tiny_model: Path, tmp_path: Path, variant: dict[str, Any]) -> None:
    """Loss falls; the result on a fresh base answers as trained, without it the base does; a merge changes nothing."""
    method = made(variant)
    model, losses = trained(method, tiny_model)
    assert losses[-1] < losses[0]
    method.save_result(model, tmp_path)
    fresh = method.attach(method.load(tiny_model, torch.float32), tmp_path, "mine")
    assert not fresh.training
    expected = logits(model)
    assert torch.allclose(logits(fresh), expected, atol=1e-5)
    base = logits(method.load(tiny_model, torch.float32).eval())
    assert (expected - base).abs().max() > 1e-3
    if method.adapter:
        with fresh.disable_adapter():
            assert torch.equal(logits(fresh), base)
    if method.mergeable:
        whole = method.attach(METHODS["lora"]().load(tiny_model, torch.float32), tmp_path)
        answers = logits(whole)
        assert torch.allclose(logits(method.merge(whole)), answers, atol=1e-5)


def test_variants_cover_every_knob() -> None:
    from studio.commands.methods import knobs

    for name, kind in METHODS.items():
        used = {key for variant in VARIANTS if variant["name"] == name for key in variant} | {
            key for variant in VARIANTS for key in variant if name == "qlora"
        }
        assert {knob["key"] for knob in knobs(kind)} <= used, name


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if len(variant) > 1], ids=title)
def test_every_knob_changes_something(tiny_model: Path, variant: dict[str, Any]) -> None:
    """Three steps with the knob set end elsewhere than three steps without it."""
    *rest, key = variant
    without = {name: variant[name] for name in rest}
    with_it, _ = trained(made(variant), tiny_model, 3)
    if title(without) not in PLAIN:
        PLAIN[title(without)] = trained(made(without), tiny_model, 3)[0]
    plain = PLAIN[title(without)]
    if key == "compute":  # the same numbers in float32 on tiny weights may round alike: the layers themselves say
        types = [
            one.get_submodule("base_model.model.model.layers.0.mlp.up_proj.base_layer").compute_dtype
            for one in (with_it, plain)
        ]
        assert types == [torch.bfloat16, torch.float32]
        return
    assert not torch.equal(logits(with_it), logits(plain))


@pytest.mark.parametrize("name", METHODS)
def test_only_what_should_gets_a_gradient(tiny_model: Path, name: str) -> None:
    method = METHODS[name]()
    model = method.wrap(method.load(tiny_model, torch.float32))
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    model.train()
    loss_of(model).backward()
    with_gradient = {key for key, weight in model.named_parameters() if weight.grad is not None}
    assert with_gradient == {key for key, weight in model.named_parameters() if weight.requires_grad}
    torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2).step()
    moved = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    assert moved <= with_gradient
    assert moved


@pytest.mark.parametrize("kind", families.METHODS)
@pytest.mark.parametrize("name", METHODS)
def test_other_architectures(architecture: Callable[[str], Path], tmp_path: Path, name: str, kind: str) -> None:
    """Train, save, attach, generate, on models that name and shape their layers otherwise."""
    method, folder = METHODS[name](), architecture(kind)
    model, losses = trained(method, folder, 6)
    assert losses[-1] < losses[0]
    method.save_result(model, tmp_path)
    fresh = method.attach(method.load(folder, torch.float32), tmp_path)
    assert torch.allclose(logits(fresh), logits(model), atol=1e-5)
    options = {
        "input_ids": IDS[:1],
        "attention_mask": BATCH["attention_mask"][:1],
        "max_new_tokens": 4,
        "do_sample": False,
    }
    assert torch.equal(fresh.generate(**options), model.generate(**options))


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.adapter])
def test_several_on_one_base(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """Two results on one base, switched by name, each as if it were alone; off, the base is itself."""
    alone = []
    for place, steps in enumerate((2, 5)):
        model, _ = trained(METHODS[name](), tiny_model, steps)
        METHODS[name]().save_result(model, tmp_path / str(place))
        alone.append(logits(model))
    base = METHODS[name]().load(tiny_model, torch.float32).eval()
    plain = logits(base)
    both = METHODS[name]().attach(base, tmp_path / "0", "first")
    both = METHODS[name]().attach(both, tmp_path / "1", "second")
    assert torch.allclose(logits(both), alone[1], atol=1e-5)
    both.set_adapter("first")
    assert torch.allclose(logits(both), alone[0], atol=1e-5)
    with both.disable_adapter():
        assert torch.equal(logits(both), plain)
    both.set_adapter("second")
    assert torch.allclose(logits(both), alone[1], atol=1e-5)


def test_kinds_do_not_mix_on_one_base(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("lora", "prompt"):
        model, _ = trained(METHODS[name](), tiny_model, 1)
        METHODS[name]().save_result(model, tmp_path / name)
    base = METHODS["lora"]().attach(METHODS["lora"]().load(tiny_model, torch.float32), tmp_path / "lora")
    with pytest.raises(ModelError, match="do not mix"):
        METHODS["prompt"]().attach(base, tmp_path / "prompt", "other")


@pytest.mark.parametrize("name", METHODS)
def test_merge_or_a_reason(tiny_model: Path, name: str) -> None:
    method = METHODS[name]()
    model = method.wrap(method.load(tiny_model, torch.float32))
    if not method.mergeable:
        with pytest.raises(ExportError, match="cannot be merged"):
            method.merge(model)
    elif method.quantized():
        with pytest.raises(ExportError, match="4 or 8 bits"):
            method.merge(model)
    else:
        assert not hasattr(method.merge(model), "peft_config")


@pytest.mark.parametrize(
    "variant",
    [{"name": "qlora"}, {"name": "qlora", "quantization": "int8"}, {"name": "adapter", "quantization": "nf4"}],
    ids=title,
)
def test_quantized_base_learns_after_an_evaluation(tiny_model: Path, variant: dict[str, Any]) -> None:
    """An evaluation must not cost the base its backward pass, nor change what it answers."""
    method = made(variant)

    def gradients(evaluate: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        model = method.wrap(method.load(tiny_model, torch.float32))
        for key, weight in model.named_parameters():
            if weight.requires_grad and ("lora_B" in key or "adapter_up" in key):
                weight.data.normal_(std=0.1)  # off the start, where half of the gradients are zero
        if evaluate:
            logits(model.eval())
        model.train()
        torch.manual_seed(4)
        loss_of(model).backward()
        return {key: weight.grad for key, weight in model.named_parameters() if weight.requires_grad}

    plain, after = gradients(False), gradients(True)
    assert all(torch.equal(plain[key], after[key]) for key in plain)
    assert all(gradient.abs().max() > 0 for gradient in plain.values())


def test_quantized_for_real(tiny_model: Path) -> None:
    """Four-bit weights lie there as bytes, two in each, and the count of parameters says so."""
    linear = METHODS["qlora"]().load(tiny_model, torch.float32).model.layers[0].mlp.up_proj
    assert linear.weight.dtype == torch.uint8
    assert linear.weight.numel() == linear.in_features * linear.out_features // 2
    eight = METHODS["qlora"](quantization="int8").load(tiny_model, torch.float32).model.layers[0].mlp.up_proj
    assert eight.weight.dtype == torch.int8


def test_loraplus_groups(tiny_model: Path) -> None:
    method = METHODS["lora"](plus_ratio=16)
    slow, fast = method.parameter_groups(method.wrap(method.load(tiny_model, torch.float32)), 1e-4)
    assert (slow["lr"], fast["lr"]) == (1e-4, 16e-4)
    assert {weight.shape[1] for weight in fast["params"]} == {method.rank}
    assert METHODS["lora"]().parameter_groups(None, 1e-4) is None


def test_start_from_main_directions_leaves_the_model(tiny_model: Path, tmp_path: Path) -> None:
    """PiSSA and OLoRA take their part out of W: untrained the model answers as the base; saved, W is unchanged."""
    for init in ("pissa", "olora"):
        method = METHODS["lora"](init=init)
        model = method.wrap(method.load(tiny_model, torch.float32)).eval()
        base = logits(method.load(tiny_model, torch.float32).eval())
        assert torch.allclose(logits(model), base, atol=1e-4)
        method.save_result(model, tmp_path / init)
        assert torch.allclose(
            logits(method.attach(method.load(tiny_model, torch.float32), tmp_path / init)), base, atol=1e-4
        )
        assert '"r": 32' in (tmp_path / init / "adapter_config.json").read_text()


def test_a_prefix_starts_as_its_words(tiny_model: Path) -> None:
    """Before the first step the prefix is what the base keeps of the same words: nothing must be unlearnt."""
    method = METHODS["prefix"](virtual_tokens=5)
    base = method.load(tiny_model, torch.float32).eval()
    words = torch.tensor([method.text_ids(base, method.text)]).expand(len(IDS), -1)
    assert words.shape[1] == 5
    with torch.no_grad():
        expected = base(input_ids=torch.cat([words, IDS], 1)).logits[:, 5:]
    assert torch.allclose(logits(method.wrap(base).eval()), expected, atol=1e-5)
