"""Run by test_pretended_accelerator.py: every method goes there and back on a pretended accelerator, from loading on.

No tensor is made on the host, and the device is asked nothing.

The order is the trainer's: load, move, wrap, then StudioTrainer's own training step and the optimizer's. What is
computed is not tested here; that a card could compute it, and would not be waited for, is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen
from torch.nn.attention.varlen import varlen_attn

from studio import auto, cards, config, model
from studio.method import Method
from studio.methods import METHODS
from studio.resolve import Resolved, resolve
from studio.worker import attention, base_model, distributed, fast_lora
from studio.worker.batches import MicroBatchCollator
from studio.worker.grpo import GroupObjective
from studio.worker.packing import Layout
from studio.worker.preference import Objective
from studio.worker.trainer import StudioTrainer
from tests import pretended, tiny

ROWS = [{"input_ids": list(range(1, length)), "labels": [-100, *range(2, length)]} for length in (20, 30, 40)]
STATISTICS = {"rows": 100, "tokens": 3000, "trained": 2000, "max": 40}
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
CASES = [
    (name, packed, precision, checkpointing)
    for name, method in METHODS.items()
    for packed in (True, False)
    for precision in PRECISIONS
    for checkpointing in (False, True)
    if (method.allows_packing or not packed) and (method.allows_checkpointing or not checkpointing)
]
VARIANTS = [
    {"name": "lora", "dora": True},
    {"name": "lora", "dropout": 0.0, "plus_ratio": 4.0},
    {"name": "lora", "modules_to_save": ["lm_head"]},
    {"name": "full", "last_layers": 1},
    {"name": "prefix", "projection": True},
    {"name": "p_tuning", "encoder": "mlp"},
    {"name": "adapter", "dropout": 0.1},
]


class Trainer(StudioTrainer):
    """The step of ours, without what the Trainer of transformers prepares."""

    def __init__(self, resolved: Resolved, backward: Any):
        self.args = SimpleNamespace(device=torch.device(pretended.NAME), label_smoothing_factor=0.0)
        self.world_size, self.loss_kind, self.dtype = 1, resolved.loss, getattr(torch, resolved.dtype)
        self.optimizer = self.brake = self._correct = None
        self.report, self.sharded = SimpleNamespace(num_tokens=0), False
        self.state = SimpleNamespace(global_step=0)
        self.accelerator = SimpleNamespace(
            no_sync=lambda model: contextlib.nullcontext(),
            backward=backward,
            unwrap_model=lambda model, **_: model,
            autocast=contextlib.nullcontext,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("model") / "tiny", layers=1)


@pytest.fixture(autouse=True)
def _honest(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Method.load
    monkeypatch.setattr(Method, "load", lambda self, *given, **more: pretended.loaded(load, self, *given, **more))
    pretended.real_answers(monkeypatch)
    pretended.fake_files(monkeypatch)


def steps(
    folder: Path,
    method: Any,
    packed: bool,
    precision: str,
    checkpointing: bool = False,
    count: int = 1,
    stage: dict[str, Any] | None = None,
    rows: list[dict[str, Any]] = ROWS,
    prepare: Callable[[Any, Any], None] = lambda trainer, tuned: None,
) -> Any:
    """Train `count` steps of as many micro-batches; returns the tuned model.

    prepare: called with the trainer and the tuned model before the first step.
    """
    order = config.build(
        {
            "data": {"train": "none.json"},
            "method": method,
            "stage": stage or {"name": "sft"},
            "training": {"packing": packed or False, "precision": precision, "checkpointing": checkpointing},
        }
    )
    resolved = resolve(order, model.facts(folder), cards.device("RTX 4090"), STATISTICS)._replace(device=pretended.NAME)
    layout = Layout(resolved.packed, 128 // count, 4 // count)
    micro_batches = MicroBatchCollator(layout)(rows)
    assert resolved.packed == packed
    assert stage or len(micro_batches) == count
    with pretended.accelerator():
        _, tuned = base_model.load_and_wrap(order, resolved, folder)
        for name, weight in [*tuned.named_parameters(), *tuned.named_buffers()]:
            assert weight.device.type == pretended.NAME, f"{name} lies on {weight.device}"
        tuned.config.use_cache = False  # as the Trainer does
        if checkpointing:
            tuned.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        optimizer = torch.optim.AdamW(
            order.method.parameter_groups(tuned, 1e-3) or [one for one in tuned.parameters() if one.requires_grad],
            lr=1e-3,
            fused=True,
        )
        scaler = torch.amp.GradScaler(pretended.NAME, enabled=precision == "fp16")
        trainer = Trainer(resolved, lambda loss: scaler.scale(loss).backward())
        trainer.model = tuned
        if not order.stage.is_supervised:
            trainer.layout = layout
            trainer.objective = (GroupObjective if order.stage.generates else Objective)(order.stage, trainer)
        prepare(trainer, tuned)
        there = [
            {key: pretended.given(value, "cpu") for key, value in micro_batch.items()} for micro_batch in micro_batches
        ]
        with (
            pretended.Strict(),
            torch.autocast(pretended.NAME, PRECISIONS[precision], enabled=resolved.autocast is not None),
        ):
            for _ in range(count):
                loss = trainer.training_step(tuned, there)
                with torch.autocast(pretended.NAME, enabled=False):
                    if scaler.is_enabled():
                        scaler.unscale_(optimizer)
                    norm = torch.nn.utils.clip_grad_norm_([one for one in tuned.parameters() if one.requires_grad], 1.0)
                    scaler.step(optimizer)
                    scaler.update()
                assert {loss.device.type, norm.device.type} == {pretended.NAME}
                missing = [
                    name for name, weight in tuned.named_parameters() if weight.requires_grad and weight.grad is None
                ]
                assert not missing, f"no gradient came to {missing}"
                optimizer.zero_grad()
    return tuned


@pytest.mark.parametrize(("name", "packed", "precision", "checkpointing"), CASES)
def test_every_method_trains(name: str, packed: bool, precision: str, checkpointing: bool, folder: Path) -> None:
    steps(
        folder,
        {"name": name, **({"init": "random"} if name in ("prefix", "prompt") else {})},
        packed,
        precision,
        checkpointing,
    )


@pytest.mark.parametrize("method", VARIANTS, ids=lambda method: "-".join(map(str, method.values())))
def test_their_variants_train(method: dict[str, Any], folder: Path) -> None:
    steps(folder, method, False, "bf16", count=2)


@pytest.mark.parametrize(
    ("method", "hidden"),
    [
        ("lora", 32),
        ("lora", 48),  # heads of 12, as OpenLLaMA 3B has 100: no multiple of 8
        ("full", 32),
        ("adapter", 32),
        ({"name": "lora", "modules_to_save": ["embed_tokens"]}, 32),
    ],
    ids=str,
)
def test_packed_rows_take_the_variable_length_kernel(
    method: Any, hidden: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Ampere and newer, in 16 bits, whatever is trained, there and back through torch's own operator.

    What its CUDA kernel asks for is checked here (flash_api.cpp). Float32 weights leave float32 queries and keys under
    autocast.
    """
    taken = []

    def kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rows: Any, **options: Any) -> torch.Tensor:
        tensors = (query, key, value)
        assert all(tensor.stride(-1) == 1 and tensor.shape[-1] % 8 == 0 for tensor in tensors)
        assert {starts.dtype for starts in rows[:2]} == {torch.int32}
        taken.append(tuple(tensor.dtype for tensor in tensors))
        return varlen_attn(query, key, value, *rows, **options)

    monkeypatch.setattr(attention, "_has_flash", lambda query, *_: query.dtype in (torch.bfloat16, torch.float16))
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    steps(tiny.write(tmp_path / "tiny", hidden=hidden, layers=1), method, True, "bf16")
    assert taken == [(torch.bfloat16,) * 3], "one layer, one micro-batch"


# -- what this file is for is really caught


def test_dropout_drawn_on_the_host_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(x: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor, float, float]:
        mask = torch.empty(x.shape).bernoulli_(1 - rate)
        return x * mask, mask, 1.0, 1.0

    monkeypatch.setattr(fast_lora, "drop", drawn)
    with pytest.raises((pretended.WrongDevice, RuntimeError), match="host|device"):
        steps(folder, "lora", True, "bf16")


def test_a_model_that_was_not_moved_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "to_device", lambda base, kind: base)
    with pytest.raises(AssertionError, match="lies on cpu"):
        steps(folder, "lora", True, "bf16")


@pytest.mark.parametrize(
    "ask",
    [
        lambda starts: starts.tolist(),
        lambda starts: starts.cpu(),
        lambda starts: bool((starts > 0).all()),
        lambda starts: starts.nonzero(),
        lambda starts: torch.zeros(3).add_(starts.sum()),
    ],
    ids=["tolist", "cpu", "bool", "nonzero", "mixed"],
)
def test_questions_to_the_device_are_caught(ask: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention._causal

    def asking(query: torch.Tensor, *given: Any) -> torch.Tensor:
        ask(torch.ones(3, dtype=torch.int32, device=query.device))
        return real(query, *given)

    monkeypatch.setattr(attention, "_causal", asking)
    with pytest.raises(Exception, match="host|_local_scalar_dense|nonzero|device"):
        steps(folder, "full", True, "bf16")


def test_a_mask_made_by_transformers_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers asks the device whether rows are packed wherever a mask function is registered for the attention."""
    monkeypatch.setattr(auto, "masked", lambda *given: True)
    with pytest.raises(Exception, match="_local_scalar_dense|is_nonzero|host"):
        steps(folder, "lora", False, "bf16")
