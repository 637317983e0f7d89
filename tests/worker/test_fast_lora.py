"""Sped-up LoRA layers compute what peft's compute."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional

from studio.methods.lora import LoRA
from studio.worker.fast_lora import DropoutLinear, dropout_mask, speed_up_lora


def test_the_dropout_mask_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(400, 501)
    mask, scale = dropout_mask(x, 0.05)
    assert abs((mask == 0).float().mean().item() - 0.05) < 0.002
    assert abs(mask.float().mean().item() * scale - 1) < 0.003
    for lane in range(4):  # the four numbers of one 64-bit draw
        assert abs((mask.flatten()[lane::4] == 0).float().mean().item() - 0.05) < 0.004
    torch.manual_seed(0)
    assert torch.equal(dropout_mask(x, 0.05)[0], mask)


def test_dropout_linear_is_dropout_and_a_linear() -> None:
    """Against torch's own operations with the same mask, values and gradients; x in rows of several dimensions."""
    x, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 8, 16), (4, 16)))
    grad_output = torch.randn(3, 8, 4, dtype=torch.float64)
    torch.manual_seed(1)
    output = DropoutLinear.apply(x, weight, 0.3, torch.float64)
    mine = torch.autograd.grad(output, (x, weight), grad_output)
    torch.manual_seed(1)
    mask, scale = dropout_mask(x, 0.3)
    expected = functional.linear(x * mask * scale, weight)
    torch.testing.assert_close(output, expected)
    for one, other in zip(mine, torch.autograd.grad(expected, (x, weight), grad_output), strict=True):
        torch.testing.assert_close(one, other)
    assert 0 < (mask == 0).sum() < mask.numel()


def test_a_quick_layer_drops_only_while_it_trains(tiny_model: Path) -> None:
    torch.manual_seed(0)
    model = LoRA(dropout=0.5).wrap(LoRA().load(tiny_model, torch.float32))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    before, ids = {name: weight.clone() for name, weight in model.state_dict().items()}, torch.arange(5, 45)[None]
    plain = model.eval()(input_ids=ids).logits
    speed_up_lora(model, autocast=False)
    assert set(model.state_dict()) == set(before)
    torch.testing.assert_close(model(input_ids=ids).logits, plain)
    model.train()
    assert not torch.allclose(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_sped_up_layers_agree_under_autocast(tiny_model: Path) -> None:
    losses = []
    for quick in (False, True):
        torch.manual_seed(0)
        model = LoRA(dropout=0.0).wrap(LoRA().load(tiny_model, torch.bfloat16))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        if quick:
            speed_up_lora(model, autocast=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=torch.arange(5, 45)[None]).logits.float().logsumexp(-1).mean()
        loss.backward()
        losses.append([loss, *(weight.grad for weight in model.parameters() if weight.requires_grad)])
    for mine, theirs in zip(*losses, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-4)
