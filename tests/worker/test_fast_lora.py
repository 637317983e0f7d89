"""Sped-up LoRA layers compute what peft's compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from studio.methods.lora import LoRA
from studio.methods.qlora import QLoRA
from studio.worker.fast_lora import Frozen, LowRankLinear, dropout_mask, narrow_copies, speed_up_lora


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


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_low_rank_linear_is_what_its_formula_says(is_fused: bool, rate: float) -> None:
    """Against torch's own operations with the same mask, values and gradients; x in rows of several dimensions."""
    shapes = ((3, 8, 16), (4, 16), (6, 4), (6, 16), (6,))
    x, lora_A, lora_B, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in shapes)
    inputs = [tensor.requires_grad_() for tensor in (x, lora_A, lora_B)]
    result = None if is_fused else functional.linear(x, weight, bias)
    base = (weight, bias) if is_fused else (None, None)
    torch.manual_seed(1)
    frozen = Frozen(lora_A.detach(), lora_B.detach(), 1.7, rate, *base)
    output = LowRankLinear.apply(x, lora_A, lora_B, result, frozen)
    grad_output = torch.randn(3, 8, 6, dtype=torch.float64)
    torch.manual_seed(1)
    mask, scale = dropout_mask(x, rate) if rate else (torch.ones_like(x), 1.0)
    low_rank = functional.linear(functional.linear(x * mask * scale, lora_A), lora_B)
    expected = functional.linear(x, weight, bias) + 1.7 * low_rank
    torch.testing.assert_close(output, expected)
    output *= 2  # as Falcon adds its attention's to its feed-forward's
    expected = expected * 2
    grads, expected_grads = (torch.autograd.grad(value, inputs, grad_output) for value in (output, expected))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad)


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


@pytest.mark.parametrize("method", [LoRA(dropout=0.0), LoRA(dropout=0.0, rslora=True), QLoRA(dropout=0.0)], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_steps_agree_with_those_of_peft(method: LoRA, checkpointing: bool, tiny_model: Path) -> None:
    """Under autocast, losses, gradients and weights; the copies of A and B are those of the step."""
    runs = []
    for is_quick in (False, True):
        torch.manual_seed(0)
        model = method.wrap(method.load(tiny_model, torch.bfloat16)).train()
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        if is_quick:
            speed_up_lora(model, autocast=True)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer, values = torch.optim.SGD(weights, lr=0.1), []
        for start in (5, 50):
            with narrow_copies(model, torch.bfloat16):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = model(input_ids=torch.arange(start, start + 40)[None]).logits.float().logsumexp(-1).mean()
                loss.backward()
            values += [loss.detach(), *(weight.grad.clone() for weight in weights)]
            optimizer.step()
            optimizer.zero_grad()
        runs.append([*values, *weights])
    for mine, theirs in zip(*runs, strict=True):
        assert (mine - theirs).norm() <= 0.03 * theirs.norm(), "more than bf16 rounds"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_sped_up_layers_agree_in_float32(family: str, tiny_model: Path, tmp_path: Path) -> None:
    """Where nothing is rounded to 16 bits; GPT-2's linears hold their weights transposed."""
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=300, n_positions=64, resid_pdrop=0.0)
    values = []
    for is_quick in (False, True):
        torch.manual_seed(0)
        base = LoRA().load(tiny_model, torch.float32) if family == "llama" else GPT2LMHeadModel(config)
        model = LoRA(dropout=0.0, rank=8, alpha=13).wrap(base).eval()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        if is_quick:
            speed_up_lora(model, autocast=False)
        logits = model(input_ids=torch.arange(5, 45)[None]).logits
        logits.logsumexp(-1).mean().backward()
        with model.disable_adapter():
            plain = model(input_ids=torch.arange(5, 45)[None]).logits
        values.append([logits, plain, *(weight.grad for weight in model.parameters() if weight.requires_grad)])
    for mine, theirs in zip(*values, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
