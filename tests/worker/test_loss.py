"""The loss on trained tokens only is the plain loss, with its gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from studio import auto, config, device, kernels
from studio.base import proved
from studio.methods import METHODS
from studio.methods.lora import LoRA
from studio.model import facts
from studio.worker import head as heads
from studio.worker.attention import PACKED_ATTENTION
from studio.worker.generate import Answer, Batch
from studio.worker.head import Head, HeadLosses, LogitTransform
from studio.worker.loss import loss, unwrap
from studio.worker.packing import collate
from studio.worker.sampling import IncrementalText, Sampling
from tests.methods import architectures
from tests.worker import test_families


def rows() -> list[dict[str, list[int]]]:
    torch.manual_seed(3)
    made = []
    for length in (9, 30, 17):
        ids = torch.randint(3, 300, (length,)).tolist()
        made.append({"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :]})
    return made


def reference_loss(model: Any, micro_batch: dict[str, Any]) -> torch.Tensor:
    """Full logits, torch's own cross entropy."""
    logits = model(input_ids=micro_batch["input_ids"], attention_mask=(micro_batch["input_ids"] != 0).long()).logits[
        :, -micro_batch["labels"].shape[1] :
    ]
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), micro_batch["labels"][:, 1:].flatten(), reduction="sum"
    )


@pytest.mark.parametrize(("room", "deep"), [(2**25, 512), (400 * 4 * 5, 512), (400 * 4 * 5, 10), (400 * 4 * 5, 1)])
@pytest.mark.parametrize(
    "transform", [LogitTransform(), LogitTransform(0.25), LogitTransform(1.0, 3.0), LogitTransform(2.0, 5.0)]
)
@pytest.mark.parametrize("with_bias", [False, True])
def test_head_loss_and_gradients(
    room: int, deep: int, transform: LogitTransform, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels.LOGIT_CHUNK_BYTES, "cpu", room)
    monkeypatch.setattr(heads, "HEAD_GRAD_POSITIONS", deep)
    torch.manual_seed(0)
    hidden, weight = torch.randn(23, 16, requires_grad=True), torch.randn(400, 16, requires_grad=True)
    bias = torch.randn(400, requires_grad=True) if with_bias else None
    targets = torch.randint(0, 400, (23,))
    leaves = [one for one in (hidden, weight, bias) if one is not None]

    logits = functional.linear(hidden, weight, bias) * transform.scale
    logits = torch.tanh(logits / transform.cap) * transform.cap if transform.cap else logits
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    found = HeadLosses.apply(hidden, weight, bias, None, Head(weight, bias, transform, torch.float32), targets, True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    for mine, theirs in zip(
        torch.autograd.grad(found * 0.3, leaves), torch.autograd.grad(expected * 0.3, leaves), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_without_a_label_the_head_still_has_a_gradient() -> None:
    """Of zeros: processes that share a step wait for each other's."""
    hidden, weight = torch.randn(0, 16, requires_grad=True), torch.randn(400, 16, requires_grad=True)
    head = Head(weight, None, LogitTransform(), torch.float32)
    found = HeadLosses.apply(hidden, weight, None, None, head, torch.zeros(0, dtype=torch.int64), True)
    found.backward()
    assert found.item() == 0
    assert torch.equal(weight.grad, torch.zeros(400, 16))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_loses_the_same_either_way(name: str, tiny_model: Path) -> None:
    if name == "qlora":
        pytest.skip("4-bit weights are rounded differently by shape; its loss is held in tests/methods")
    method = METHODS[name]()
    torch.manual_seed(0)
    model = method.wrap(method.load(tiny_model, torch.float32)).eval()
    micro_batch = collate(rows(), packed=False)
    found = loss(model, micro_batch, "chunked", torch.float32)
    found.backward()
    mine = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    expected = reference_loss(model, micro_batch)
    expected.backward()
    theirs = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert abs(found.item() - expected.item()) < 1e-3
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_frozen_head_is_not_copied(tiny_model: Path) -> None:
    """In training and at the end of a prompt, there and in the chat; in 16 bits a CPU that computes in them would."""
    model = LoRA().wrap(LoRA().load(tiny_model, torch.bfloat16))
    micro_batch = collate(rows(), packed=True)
    answer = Answer(rows()[1]["input_ids"], Sampling(2), IncrementalText(lambda _: ""), frozenset(), 64)
    with torch.profiler.profile(record_shapes=True) as seen, torch.autocast("cpu", torch.bfloat16):
        loss(model, micro_batch, "chunked", torch.bfloat16)
        Batch(model.eval()).prefill(answer)
    copied = [event.input_shapes[0] for event in seen.events() if event.name == "aten::clone" and event.input_shapes]
    assert max(torch.Size(shape).numel() for shape in copied) < unwrap(model).get_output_embeddings().weight.numel()


def test_full_with_smoothing_is_torchs(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    micro_batch = collate(rows(), packed=False)
    logits = model(input_ids=micro_batch["input_ids"]).logits
    expected = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), micro_batch["labels"][:, 1:].flatten(), reduction="sum", label_smoothing=0.1
    )
    torch.testing.assert_close(loss(model, micro_batch, "full", torch.float32, 0.1), expected)


def test_nothing_trained_adds_nothing(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    micro_batch = collate([{"input_ids": [4, 5, 6], "labels": [-100] * 3}], packed=False)
    found = loss(model, micro_batch, "chunked", torch.float32)
    found.backward()
    assert found.item() == 0
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


def test_what_models_do_to_their_logits() -> None:
    from transformers import AutoConfig

    assert LogitTransform.of(AutoConfig.for_model("gemma2")).cap == 30.0
    assert LogitTransform.of(AutoConfig.for_model("granite", logits_scaling=8.0)).scale == 0.125
    assert LogitTransform.of(AutoConfig.for_model("cohere", logit_scale=0.25)).scale == 0.25
    assert LogitTransform.of(AutoConfig.for_model("llama")) == LogitTransform()


@pytest.mark.parametrize("kind", ["chunked", "full"])
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "jetmoe"])  # jetmoe calls the coefficient otherwise
def test_experts_are_balanced_where_the_base_asks_for_it(family: str, kind: str) -> None:
    """output_router_logits in config.json: loss and gradients of padded rows are transformers' own, under its mask."""
    attentions = ("eager", PACKED_ATTENTION if family in proved.PACKED else "eager")
    plain, ours = (test_families.model(family, kernel).train() for kernel in attentions)
    for one in (plain, ours):
        one.config.output_router_logits, one.router_aux_loss_coef, one.aux_loss_coef = True, 0.5, 0.5
    several = [{"input_ids": [*range(5, 5 + length)], "labels": [*range(5, 5 + length)]} for length in (9, 23)]
    padded = collate(several, False)
    mask = torch.arange(padded["input_ids"].shape[1]) < torch.tensor([[9], [23]])
    expected = plain(input_ids=padded["input_ids"], attention_mask=mask.long(), labels=padded["labels"]).loss
    expected.backward()
    found = loss(ours, padded, kind, torch.float32) / 30
    found.backward()
    torch.testing.assert_close(found, expected)
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, weight.grad, rtol=1e-3, atol=1e-5)


def test_rows_are_not_packed_where_experts_are_balanced(tmp_path: Path) -> None:
    """What fills a packed micro-batch up would be balanced too, and it has no mask to leave it out."""
    folder = architectures.write(tmp_path, "mixtral")
    settings = json.loads((folder / "config.json").read_text())
    ordered = config.build({"model": str(folder), "data": {"train": "sample"}})
    assert auto.layout(ordered, facts(folder), device.cpu(), 20)[0]
    (folder / "config.json").write_text(json.dumps({**settings, "output_router_logits": True}))
    packed, _, why = auto.layout(ordered, facts(folder), device.cpu(), 20)
    assert (packed, "balances its experts" in why) == (False, True)
