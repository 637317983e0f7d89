"""Weights kept in bf16 alone: rounded at random, small steps add up to what float32 gives."""

from __future__ import annotations

import pytest
import torch

from studio.worker import adamw
from studio.worker.adamw import RoundedAdamW, round_stochastically
from studio.worker.random_bits import random_int16


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return random_int16(count, torch.device("cpu"), torch.Generator().manual_seed(seed))


def test_rounding_is_right_in_the_mean() -> None:
    """bf16 has 1 and 1 + 1/128: the share of values that are rounded up is how near the upper one lies."""
    many = 200_000
    for expected in (0.0, 0.1, 0.5, 0.9):
        exact = 1 + expected / 128
        found = round_stochastically(torch.full((many,), exact), noise(many)).float()
        assert set(found.unique().tolist()) <= {1.0, 1 + 1 / 128}
        share = (found > 1).float().mean().item()
        assert abs(share - expected) < 5 * (max(expected * (1 - expected), 1e-9) / many) ** 0.5 + 1e-6, (
            "five standard deviations"
        )


def test_what_bf16_can_hold_stays_as_it_is() -> None:
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    assert torch.equal(round_stochastically(exact.float(), noise(1000)), exact)
    odd = torch.tensor([float("inf"), float("-inf"), float("nan"), 0.0, -0.0])
    found = round_stochastically(odd.clone(), noise(5))
    assert torch.equal(found[:2].float(), odd[:2])
    assert found[2].isnan()
    assert not found[3:].any()


def test_random_bits_are_uniform() -> None:
    drawn = noise(400_001)
    assert len(drawn) == 400_001
    assert abs(drawn.float().mean().item()) < 32768 * 5 / 400_001**0.5
    assert drawn.min() < -32000
    assert drawn.max() > 32000


def test_a_card_is_not_asked_for_64_bits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPU refuses them: "random_mps_ currently does not handle the lowest() -> max() range"."""
    monkeypatch.setattr(torch.Tensor, "random_", None, raising=False)
    drawn = random_int16(9, torch.device("meta"))
    assert (drawn.shape, drawn.dtype) == ((9,), torch.int16)


def walk(dtype: torch.dtype, optimizer: type, steps: int = 400, **options: float) -> torch.Tensor:
    """Weights of 1, constant gradient: AdamW moves each by lr a step, a hundredth of bf16's resolution there."""
    weight = torch.nn.Parameter(torch.ones(5000, dtype=dtype))
    made = optimizer([weight], lr=1 / 128 / 100, weight_decay=0.0, **options)
    for _ in range(steps):
        weight.grad = torch.full_like(weight, 0.5)
        made.step()
    return weight.detach().float()


def test_small_steps_are_not_lost() -> None:
    expected = walk(torch.float32, torch.optim.AdamW)
    lost = walk(torch.bfloat16, torch.optim.AdamW)
    found = walk(torch.bfloat16, RoundedAdamW, seed=3)
    assert torch.equal(lost, torch.ones_like(lost)), "rounded to the nearest, four hundred steps leave no trace"
    moved = (1 - expected).mean().item()
    assert (1 - found).mean().item() == pytest.approx(moved, rel=0.03)


def test_it_is_adamw_where_nothing_is_rounded_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torch's own on float32, step by step, within what bf16 can tell; in chunks as in one."""
    torch.manual_seed(0)
    start, grads = torch.randn(37, 11), [torch.randn(37, 11) for _ in range(30)]
    weights = {kind: torch.nn.Parameter(start.clone().to(kind)) for kind in (torch.float32, torch.bfloat16)}
    options = {"lr": 0.01, "weight_decay": 0.1}
    monkeypatch.setattr(adamw, "ADAMW_CHUNK_SIZE", 100)
    made = {
        torch.float32: torch.optim.AdamW([weights[torch.float32]], **options),
        torch.bfloat16: RoundedAdamW([weights[torch.bfloat16]], seed=1, **options),
    }
    for grad in grads:
        for kind, weight in weights.items():
            weight.grad = grad.to(kind)
            made[kind].step()
    torch.testing.assert_close(weights[torch.bfloat16].float(), weights[torch.float32], atol=0.04, rtol=0.03)
    assert (weights[torch.bfloat16].float() - weights[torch.float32]).mean().abs() < 2e-3


def test_copies_and_resumes_draw_the_same() -> None:
    def go(weight: torch.nn.Parameter, made: RoundedAdamW, steps: range) -> None:
        for step in steps:
            torch.manual_seed(1000 * step)  # what else is drawn does not matter
            weight.grad = torch.full_like(weight, 1.0 / (1 + step))
            made.step()

    def fresh() -> tuple[torch.nn.Parameter, RoundedAdamW]:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 999).to(torch.bfloat16))
        return weight, RoundedAdamW([weight], lr=1e-3, seed=5)

    whole, first = fresh()
    go(whole, first, range(10))
    half, second = fresh()
    go(half, second, range(5))
    kept, (again, third) = {"weight": half.detach().clone(), "state": second.state_dict()}, fresh()
    again.data.copy_(kept["weight"])
    third.load_state_dict(kept["state"])
    go(again, third, range(5, 10))
    assert torch.equal(again, whole)
    assert third.state[again]["exp_avg_sq"].dtype == torch.bfloat16
