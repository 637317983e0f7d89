"""Rounding that carries the error on: on the grid, better than one by one where inputs go together, and as llama.cpp reads it."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch

from studio.talk.voice import of_base, voice
from studio.worker import rounding
from studio.worker.merge import weights
from tests import tiny
from tests.methods import architectures
from tests.worker.carrying import carry, order, rows

GRIDS = [rounding.Sixteen, rounding.Eight]


def together(tokens: int, width: int) -> torch.Tensor:
    """Inputs that go together, as a model's do: few directions carry most."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(tokens, width, generator=random) * torch.logspace(0, -2, width) @ torch.randn(width, width, generator=random)


def one_by_one(weight: torch.Tensor, grid: rounding.Grid) -> torch.Tensor:
    return torch.stack([grid.nearest(weight[:, place], place) for place in range(weight.shape[1])], 1)


@pytest.mark.parametrize("kind", GRIDS)
def test_outputs_change_less(kind: type[rounding.Grid]) -> None:
    weight, seen, unseen = torch.randn(48, 96, generator=torch.Generator().manual_seed(1)), *together(1200, 96).split(600)
    grid = kind(weight)
    carried = rounding.carried(weight, rounding.inputs(seen, seen), grid)
    assert torch.equal(one_by_one(carried, grid), carried), "it lies on the grid"
    error, plain = ((unseen @ (one - weight).T).norm() for one in (carried, one_by_one(weight, grid)))
    assert error < plain / 2, "also for inputs it was not made with"


def test_a_layer_makes_good_for_what_was_lost_before_it() -> None:
    """Answers to inputs that have come away, by a part that goes with them, come nearer to the exact layer's answers to the exact ones."""
    weight, exact, unseen = torch.randn(48, 96, generator=torch.Generator().manual_seed(1)), *together(1200, 96).split(600)
    away = torch.eye(96) + 0.01 * torch.randn(96, 96, generator=torch.Generator().manual_seed(2))
    grid = rounding.Sixteen(weight)
    known = rounding.inputs(exact @ away, exact)
    made_good = rounding.carried(weight + weight @ known.drift, known, grid)
    error, plain = ((unseen @ away @ one.T - unseen @ weight.T).norm() for one in (made_good, rounding.carried(weight, known, grid)))
    assert error < plain / 5
    assert rounding.inputs(exact, exact).drift.abs().max() == 0


def test_inputs_that_do_not_go_together_leave_nothing_to_make_good() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    alone = rounding.Inputs(torch.arange(32), torch.eye(32), torch.zeros(32, 32))
    assert torch.equal(rounding.carried(weight, alone, rounding.Sixteen(weight)), weight.bfloat16().float())


def test_bytes_are_those_that_llama_cpp_reads() -> None:
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    weight[0, :32] = 0
    grid = rounding.Eight(weight)
    near = one_by_one(weight, grid)
    read = gguf.quants.dequantize(grid.stored(near).numpy(), gguf.GGMLQuantizationType.Q8_0)
    assert torch.equal(torch.from_numpy(read), near)
    assert (near - weight).abs().max() < weight.abs().max() / 250


def test_rows_are_laid_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "WIDTH", 8)
    ids, positions, real = rounding.laid([{"input_ids": [n] * n} for n in (3, 5, 4)])
    assert ids.tolist() == [[5, 5, 5, 5, 5, 3, 3, 3], [4, 4, 4, 4, 0, 0, 0, 0]]
    assert positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 0, 1, 2, 3]]
    assert real.sum(1).tolist() == [8, 4]


@pytest.mark.parametrize("kind", GRIDS)
def test_every_layer_of_a_run_is_prepared(kind: type[rounding.Grid], home: Path, tiny_model: Path) -> None:
    """All fourteen linears of the tiny model, each near its exact weight; only what the run was trained on is looked at."""
    run = order(tiny_model, rows(home / "rows.json"), "training.max_steps=2")
    carry(run)
    told: list[tuple[int, int]] = []
    done = rounding.rounded(voice(run.id), kind, lambda *step: told.append(step))
    exact = dict(weights(voice(run.id)))
    assert set(done) == {name for name in exact if "_proj" in name}
    assert told[-1] == (14, 14)
    for name, stored in done.items():
        back = stored.float() if kind is rounding.Sixteen else torch.from_numpy(gguf.quants.dequantize(stored.numpy(), gguf.GGMLQuantizationType.Q8_0))
        assert (back - exact[name]).norm() < 0.02 * exact[name].norm()


def test_a_head_of_its_own_is_prepared_too(home: Path, tmp_path: Path) -> None:
    base = architectures.write(tmp_path / "base", "mistral")
    (base / "chat_template.jinja").write_text(tiny.CHATML)
    run = order(base, rows(home / "rows.json"), "training.max_steps=1")
    carry(run)
    assert len(rounding.rounded(voice(run.id), rounding.Eight)["lm_head.weight"]) == 400


def test_what_was_never_trained_here_is_left_to_the_writer(home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rounding.rounded(of_base(tiny_model), rounding.Eight) == {}
    monkeypatch.setattr(rounding, "CPU_EACH", 0)
    assert rounding.place(11) is None
