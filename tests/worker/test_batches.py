"""Which rows a step sees, and how they are collated into micro-batches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from studio.kernels import PAD_TO_MULTIPLE_OF
from studio.worker.base_answers import ask_base
from studio.worker.batches import (
    EffectiveBatchSampler,
    MicroBatchCollator,
    StepLoader,
    packing_statistics,
    split_rows_over_ranks,
)
from studio.worker.packing import Layout, count_target_tokens, group_rows

LENGTHS = st.lists(st.integers(2, 300), min_size=1, max_size=40)


def row(length: int, number: int = 0) -> dict[str, list[int]]:
    return {
        "input_ids": [number + 1] * length,
        "labels": [-100] * (length // 2) + [number + 1] * (length - length // 2),
    }


def test_every_row_once_an_epoch_and_each_epoch_anew() -> None:
    order = EffectiveBatchSampler(23, 4, seed=7)
    first = list(order)
    assert sorted(number for step in first for number in step) == list(range(23))
    assert len(first) == len(order) == 6
    assert list(order) == first, "the order does not depend on what was drawn before"
    order.set_epoch(1)
    assert list(order) != first
    assert list(EffectiveBatchSampler(23, 4, seed=8)) != first


def test_a_skip_goes_on_where_it_was() -> None:
    from accelerate import skip_first_batches

    rows = [row(4, number) for number in range(9)]
    loader = StepLoader(
        rows, batch_sampler=EffectiveBatchSampler(9, 2, seed=1), collate_fn=MicroBatchCollator(Layout(True, 64, 4))
    )
    whole = [[micro_batch["input_ids"].tolist() for micro_batch in step] for step in loader]
    rest = [[micro_batch["input_ids"].tolist() for micro_batch in step] for step in skip_first_batches(loader, 3)]
    assert rest == whole[3:]


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.booleans(), st.integers(1, 5))
def test_no_row_is_lost_or_cut(lengths: list[int], packed: bool, most: int) -> None:
    rows = [row(length, number) for number, length in enumerate(lengths)]
    layout = Layout(packed, max(lengths) + 50, most)
    found = group_rows(rows, layout)
    assert Counter(row["input_ids"][0] for group in found for row in group) == Counter(
        row["input_ids"][0] for row in rows
    )
    for group in found:
        if packed:
            assert sum(len(row["input_ids"]) for row in group) <= layout.max_tokens
        else:
            assert len(group) <= most


@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.booleans(), st.integers(1, 4))
def test_micro_batches_of_all_processes_hold_every_label_once(lengths: list[int], packed: bool, world: int) -> None:
    rows = [row(length, number) for number, length in enumerate(lengths)]
    items = sum(count_target_tokens(row) for row in rows)
    shapes = set()
    labels: Counter[int] = Counter()
    for rank in range(world):
        micro_batches = MicroBatchCollator(Layout(packed, 400, 4), rank, world)(rows)
        assert micro_batches, "every process takes part in every step"
        assert {micro_batch["num_items_in_batch"] for micro_batch in micro_batches} == {items}
        assert micro_batches[0]["num_tokens"] == sum(lengths)
        for micro_batch in micro_batches:
            shapes.add(micro_batch["input_ids"].shape[1])
            labels.update(micro_batch["labels"][:, 1:].flatten().tolist())
    assert all(width % PAD_TO_MULTIPLE_OF == 0 for width in shapes)
    assert sum(count for label, count in labels.items() if label != -100) == items


def test_packed_positions_begin_anew_and_no_row_predicts_the_next() -> None:
    micro_batch = MicroBatchCollator(Layout(True, 64, 4))([row(10, 1), row(20, 2)])[0]
    assert micro_batch["cu_seq_lens_q"].tolist() == [0, 20, 30, 64]
    assert micro_batch["position_ids"][0].tolist() == [*range(20), *range(10), *[0] * 34]
    assert all(micro_batch["labels"][0, start] == -100 for start in (0, 20, 30))
    assert micro_batch["max_length_q"] == 34


def test_padded_micro_batches_are_cut_where_it_costs_least() -> None:
    found = group_rows([row(length) for length in (300, 290, 20, 18, 16)], Layout(False, 0, 4))
    assert [[len(row["input_ids"]) for row in group] for group in found] == [[300, 290], [20, 18, 16]]


def test_processes_get_like_loads() -> None:
    loads = [
        sum(len(row["input_ids"]) for row in part)
        for part in split_rows_over_ranks([row(length) for length in (100, 90, 50, 40, 30, 20)], 2)
    ]
    assert abs(loads[0] - loads[1]) <= 20


@pytest.mark.parametrize("packed", [True, False])
def test_packing_statistics(packed: bool) -> None:
    statistics = packing_statistics([row(30)] * 64, Layout(packed, 512, 4), 16, 0)
    assert statistics["micro_batches_per_step"] == (1 if packed else 4)
    assert statistics["padding"] == pytest.approx(1 - 480 / 512 if packed else 1 - 30 / 64, abs=1e-4)
    assert statistics["packed"] == (1.0 if packed else 0.0)


def test_no_row_is_padded_past_the_positions_that_a_model_has_learnt() -> None:
    rows = [{"input_ids": [1] * length, "labels": [1] * length} for length in (100, 70)]
    assert Layout(False, 0, 2).collate(rows)["input_ids"].shape == (2, 128)
    assert Layout(False, 0, 2, max_width=108).collate(rows)["input_ids"].shape == (2, 108)


@pytest.mark.parametrize("virtual_tokens", [0, 10])
def test_general_items_too(virtual_tokens: int) -> None:
    """The brake and forgetting ask a model with learnt positions about rows that fill them."""
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=100, n_embd=8, n_layer=1, n_head=1)).eval()
    if virtual_tokens:
        knobs = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual_tokens)
        model = peft.get_peft_model(model, knobs).eval()
    row = {"input_ids": [1] * (100 - virtual_tokens), "labels": [1] * (100 - virtual_tokens)}
    assert len(ask_base(model, [row], torch.device("cpu"))[0].loss) == 99 - virtual_tokens
