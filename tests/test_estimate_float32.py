"""What a step takes on a CPU in float32 by the estimate, from the order on, against real steps whose tensors are
counted: rows and pairs, packed and padded, with and without dropout and checkpointing.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studio import config, device, model
from studio.memory.peak import Walk
from studio.memory.studio_loop import RowStatistics
from studio.worker import attention, fast_lora
from studio.worker.decoder_layers import decoder_layers
from studio.worker.loss import loss, unwrap
from studio.worker.packing import collate
from tests.memory_trace import Count, Unrolled
from tests.worker.comparing import objective_of

LENGTH, ROWS, LAYERS, BLOCK, WIDTH = 64, 4, 3, 64, 128
SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 352,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 512,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
METHODS = [
    ("llama", {"name": "lora"}),
    ("gemma3_text", {"name": "lora", "dropout": 0.0}),
    ("qwen2", {"name": "full"}),
    ("llama", {"name": "qlora"}),
]


@pytest.fixture(scope="module", params=METHODS, ids=lambda method: "-".join(map(str, [method[0], *method[1].values()])))
def wrapped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """(facts, the method's order, the model as the trainer wraps it)."""
    family, method = request.param
    folder = tmp_path_factory.mktemp(family)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE)).save_pretrained(folder)
    attention.register()
    knobs = config.build({"data": {"train": "rows.json"}, "method": method}).method
    tuned = knobs.wrap(knobs.load(folder, torch.float32, attn_implementation=attention.PACKED_ATTENTION))
    fast_lora.speed_up_lora(tuned, False)
    unwrap(tuned).config.use_cache = False
    return model.facts(folder), method, tuned.train()


def checkpointed(tuned: Any, adapter: bool, on: bool) -> None:
    """Switch checkpointing as the Trainer does, with embeddings that ask for a gradient under an adapter."""
    base = unwrap(tuned)
    base.gradient_checkpointing_disable()
    if getattr(base, "_require_grads_hooks", None):
        base.disable_input_require_grads()
    if on:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        if adapter:
            base.enable_input_require_grads()


def micro_batch_of(stage: str, packed: bool) -> dict[str, Any]:
    """ROWS sequences of LENGTH tokens: each a row, or two a pair."""
    sequence = {"input_ids": list(range(5, 5 + LENGTH)), "labels": list(range(5, 5 + LENGTH))}
    if stage == "sft":
        return collate([sequence] * ROWS, packed)
    pair = {key: 2 * values for key, values in sequence.items()} | {"second": LENGTH, "reference": [-9.0, -8.0]}
    return collate([pair] * (ROWS // 2), packed)


def counted(tuned: Any, stage: Any, micro_batch: dict[str, Any]) -> tuple[Count, list[int]]:
    """(a counted step, bytes alive before each layer and behind the last)."""
    layers, alive, count = decoder_layers(unwrap(tuned)), [], Count(BLOCK)
    hooks = [layer.register_forward_pre_hook(lambda *_: alive.append(count.live)) for layer in layers]
    hooks.append(layers[-1].register_forward_hook(lambda *_: alive.append(count.live)))
    objective = None if stage.is_supervised else objective_of(stage, tuned)
    with Unrolled(), count:
        for weight in tuned.parameters():
            count.add(weight)
        count.moment = "step"
        standing = count.live
        micro_batch = {key: value.clone() if hasattr(value, "clone") else value for key, value in micro_batch.items()}
        total = objective.loss(tuned, micro_batch) if objective else loss(tuned, micro_batch, "chunked", torch.float32)
        for hook in hooks:
            hook.remove()
        total.backward()
    tuned.zero_grad()
    count.peaks["step"] -= standing
    return count, alive


@pytest.mark.parametrize("checkpointing", [False, True], ids=["all kept", "checkpointed"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_step_in_float32(wrapped: tuple[Any, ...], stage: str, packed: bool, checkpointing: bool) -> None:
    """What a layer keeps to the byte or nearly, the peak beside what stands within three and a half per cent."""
    facts, method, tuned = wrapped
    training = {"precision": "fp32", "packing": packed, "micro_batch": ROWS * LENGTH if packed else "auto"}
    rows = ROWS // (1 if stage == "sft" else 2)
    order = config.build(
        {
            "data": {"train": "rows.json", "max_length": LENGTH},
            "method": method,
            "stage": stage,
            "training": {**training, "batch_size": rows, "accumulation": 1},
        }
    )
    tokens = ROWS * LENGTH - rows  # a little less than the longest rows hold: one micro-batch
    statistics = RowStatistics(rows, tokens, tokens, LENGTH * order.stage.sequences)
    walked = Walk(facts, order, device.cpu(), statistics, 1.0)(LAYERS if checkpointing else 0).step
    checkpointed(tuned, order.method.adapter, checkpointing)
    count, alive = counted(tuned, order.stage, micro_batch_of(stage, packed))
    assert walked.kept == pytest.approx(alive[2] - alive[1], rel=0.001)
    assert walked.peak - walked.standing == pytest.approx(count.peaks["step"], rel=0.035)
