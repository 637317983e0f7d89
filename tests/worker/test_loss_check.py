"""The loss check before every run: a model that computes otherwise than transformers is trained the plain way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.base import proved
from studio.worker import attention
from tests.methods import architectures
from tests.worker.carrying import carry, evals, order, rows, steps

pytestmark = pytest.mark.usefixtures("home")
OLD = architectures.OLD
FAMILIES: dict[str, dict[str, Any]] = {  # not proved: packed they learn from their neighbours, or crash
    "gpt_oss": {**architectures.GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "bloom": {"vocab_size": 400, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": {**OLD, "rotary_dim": 4},
    "gptj": {**OLD, "rotary_dim": 4},
    "gpt_neo": {
        "vocab_size": 400,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
    },
    "falcon": {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "mpt": {"vocab_size": 400, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
}
FIXED = ("method.name=full", "training.max_steps=3", "training.learning_rate=0.001")


@pytest.fixture(autouse=True)
def _own_attention_again() -> Iterator[None]:
    """transformers' registry goes on holding what a test entered; the next test wants ours."""
    yield
    attention.register()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.json", 12)


@pytest.fixture
def architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def made(kind: str) -> Path:
        monkeypatch.setitem(architectures.CONFIGS, kind, FAMILIES[kind])
        return architectures.write(tmp_path / kind, kind)

    return made


@pytest.mark.parametrize(
    ("kind", "settings", "cause"),
    [
        (
            "reformer",  # its reversible layers give no gradient where their input has none
            {"is_decoder": True, "attn_layers": ["local"], "axial_pos_embds": False, "local_attn_chunk_length": 16},
            "No gradient reaches what LoRA trains in this reformer model.",
        ),
        (
            "xlstm",
            {"num_heads": 4, "qk_dim_factor": 0.5, "chunk_size": 16, "mode": "train"},
            "This xlstm model cannot compute a single row of 31 tokens under LoRA: ValueError: Sequence length 31 is",
        ),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_in_words(
    kind: str,
    settings: dict[str, Any],
    cause: str,
    architecture: Callable[[str], Path],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = {**architectures.SAME, "num_hidden_layers": 1}
    monkeypatch.setitem(FAMILIES, kind, {**same, **settings})
    events = carry(order(architecture(kind), data, "training.max_steps=1"))
    assert events[-1]["state"] == "failed"
    assert events[-1]["cause"].startswith(cause)


def plan(events: list[dict[str, Any]]) -> dict[str, Any]:
    return next(event for event in events if event["kind"] == "plan")


def warned(events: list[dict[str, Any]]) -> bool:
    return any("trained the plain way" in event.get("text", "") for event in events)


ALONE = (*FIXED, "training.batch_size=1", "training.accumulation=4")


@pytest.mark.parametrize("kind", ["gpt_oss", "bloom", "codegen", "mpt"])
def test_a_family_that_does_not_pack_is_padded_even_where_the_list_says_otherwise(
    kind: str, architecture: Callable[[str], Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns what it learns one row at a time, padded, in transformers' own attention."""
    folder = architecture(kind)
    alone = carry(order(folder, data, *ALONE, "training.loss=full"))
    assert alone[-1]["state"] == "finished"
    monkeypatch.setattr(proved, "PACKED", proved.PACKED | {kind})
    events = carry(order(folder, data, *FIXED))
    assert events[-1]["state"] == "finished"
    assert [warned(alone), warned(events)] == [False, True]
    assert (plan(events)["packing"], plan(events)["loss"]) == (False, "full")
    assert plan(events)["attention"] in ("sdpa", "eager")
    assert steps(events) == pytest.approx(steps(alone), abs=2e-3)
    assert evals(events) == pytest.approx(evals(alone), abs=2e-3)


@pytest.mark.parametrize("kind", ["falcon", "gptj", "gpt_neo"])
def test_a_family_outside_the_list_is_trained_as_it_is(
    kind: str, architecture: Callable[[str], Path], data: Path
) -> None:
    """Also one that has no SDPA (gptj, gpt_neo: eager)."""
    events = carry(order(architecture(kind), data, *FIXED))
    assert events[-1]["state"] == "finished"
    assert not warned(events)
    assert plan(events)["attention"] == ("sdpa" if kind == "falcon" else "eager")


def test_attention_that_looks_into_the_neighbour_is_noticed(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel sees one long row: micro-batches are padded afterwards, and attention is transformers' own."""
    sound, seen = attention.packed_attention, []

    def leaking(module: Any, query: torch.Tensor, *given: Any, **more: Any) -> Any:
        seen.append(module.training)
        more.pop("cu_seq_lens_q", None)
        return sound(module, query, *given, **more)

    expected = carry(order(tiny_model, data, *FIXED))
    assert not warned(expected)
    assert plan(expected)["packing"] is True
    monkeypatch.setattr(attention, "packed_attention", leaking)
    events = carry(order(tiny_model, data, *FIXED))
    assert warned(events)
    assert seen
    assert not any(seen), "no step ran through it"
    assert steps(events) == pytest.approx(steps(expected), abs=2e-3)


def test_a_term_that_transformers_adds_to_its_loss_is_told(
    architecture: Callable[[str], Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bamba's z-loss, where config.json asks for it; the experts' balance is trained, and nothing is told of it."""
    mamba = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "attn_layer_indices": [1]}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    asked = {"output_router_logits": True, "router_aux_loss_coef": 0.5}
    for kind, settings, told in (
        ("bamba", {**mamba, "z_loss_coefficient": 0.1}, True),
        ("qwen3_moe", {**experts, **asked}, False),
    ):
        monkeypatch.setitem(FAMILIES, kind, {**architectures.GROUPED, **settings})
        events = carry(order(architecture(kind), data, "training.max_steps=1"))
        assert events[-1]["state"] == "finished"
        assert any("config.json adds another term" in event.get("text", "") for event in events) is told, kind
        assert not warned(events)
