"""Quick LoRA layers compute what peft's compute."""

from __future__ import annotations

from pathlib import Path

import torch

from studio.methods.lora import LoRA
from studio.worker.adapters import QuickDropout, quicken


def test_quick_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, x = QuickDropout(0.05), torch.ones(400, 501)
    out = drop(x)
    assert abs((out == 0).float().mean().item() - 0.05) < 0.002
    assert abs(out.mean().item() - 1) < 0.003
    for lane in range(4):  # the four fates of one draw
        assert abs((out.flatten()[lane::4] == 0).float().mean().item() - 0.05) < 0.004
    assert torch.equal(drop.eval()(x), x)
    torch.manual_seed(0)
    assert torch.equal(drop.train()(x), out)


def test_gradient_passes_where_the_value_passed() -> None:
    x = torch.randn(64, 7, requires_grad=True)
    out = QuickDropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad == 0, out == 0)


def test_quickened_layers_agree_under_autocast(tiny_model: Path) -> None:
    found = []
    for quick in (False, True):
        torch.manual_seed(0)
        model = LoRA(dropout=0.0).wrap(LoRA().load(tiny_model, torch.bfloat16))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        if quick:
            quicken(model, autocast=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=torch.arange(5, 45)[None]).logits.float().logsumexp(-1).mean()
        loss.backward()
        found.append([loss, *(weight.grad for weight in model.parameters() if weight.requires_grad)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-4)
