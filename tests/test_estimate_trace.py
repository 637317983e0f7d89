"""The estimate against real training steps of the real models, methods and loss, run under fake tensors that are counted, not computed."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from torch._subclasses import FakeTensorMode
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from studio import model
from studio.memory import tables
from studio.memory.anatomy import anatomy
from studio.memory.stack import Stack
from studio.memory.states import states
from studio.memory.step import step
from studio.methods import METHODS
from studio.worker.loss import loss
from tests.memory_trace import Choose, Count

BATCH, LENGTH, LAYERS, BLOCK = 4, 512, 2, 64
KNOWN = json.loads(tables.MODELS.read_text())
PAIRS = [
    ("HuggingFaceTB/SmolLM2-135M", {"name": "lora"}, False),
    ("HuggingFaceTB/SmolLM2-135M", {"name": "lora", "target_modules": "q-v", "dropout": 0.0}, True),
    ("HuggingFaceTB/SmolLM2-135M", {"name": "full"}, False),
    ("HuggingFaceTB/SmolLM2-135M", {"name": "adapter"}, False),
    ("HuggingFaceTB/SmolLM2-135M", {"name": "ia3"}, False),
    ("Qwen/Qwen2.5-0.5B-Instruct", {"name": "lora"}, False),
    ("meta-llama/Llama-3.2-1B", {"name": "lora"}, True),
]


def unmasked(module, query, key, value, attention_mask, **given):
    """SDPA without the mask that transformers makes whenever it cannot look into a (fake) tensor."""
    return sdpa_attention_forward(module, query, key, value, None, **given)


@pytest.fixture(scope="module", autouse=True)
def attention():
    AttentionInterface.register("unmasked", unmasked)
    AttentionMaskInterface.register("unmasked", lambda *_, **__: None)
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)
    yield
    torch.__future__.set_swap_module_params_on_conversion(before)


def built(config: dict, method, checkpointing: bool, mode: FakeTensorMode):
    """The model as the trainer wraps it: shapes on the meta device first (peft cannot wrap fake tensors), then fake ones on the CPU."""
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16, attn_implementation="unmasked")
        made.requires_grad_(False)
        made = method.wrap(made)
    base = made.get_base_model() if hasattr(made, "get_base_model") else made
    with mode:
        for module in made.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = torch.nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype, device="cpu"), weight.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
        base.tie_weights()
    made.train()
    base.config.use_cache = False
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    return made


def traced(config: dict, method, checkpointing: bool) -> Count:
    """A counted step: standing weights and states, forward with the trainer's loss, backward."""
    mode, count = FakeTensorMode(allow_non_fake_inputs=True), Count(BLOCK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = built(config, method, checkpointing, mode)
        with mode, Choose(), count:
            for weight in made.parameters():
                count.add(weight)
            kept = [torch.empty_like(weight) for weight in made.parameters() if weight.requires_grad for _ in range(2)]
            ids = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
            count.moment = "forward"
            with torch.autocast("cpu", dtype=torch.bfloat16):
                total = loss(made, {"input_ids": ids, "labels": ids}, "chunked", torch.bfloat16)
            count.moment = "backward"
            total.backward()
            assert kept is not None
    return count


@pytest.mark.parametrize(("name", "knobs", "checkpointing"), PAIRS)
def test_peak_and_standing(name: str, knobs: dict, checkpointing: bool) -> None:
    config = KNOWN[name] | {"num_hidden_layers": LAYERS}
    method = METHODS[knobs["name"]](**{key: value for key, value in knobs.items() if key != "name"})
    facts = model.from_config(config)
    footprint = method.footprint(facts)
    whole = bool(footprint.weights)
    stack = Stack(device="cpu", batch=BATCH, length=LENGTH, labels=BATCH * (LENGTH - 1), stream=4 if whole else 2, mask=False, expanded=False,
                  checkpointing=checkpointing, input_grads=checkpointing)
    walked = step(anatomy(facts), stack, footprint, states(facts, footprint, method.trained(facts), stack))
    count = traced(config, method, checkpointing)
    assert walked.by_moment["load"] == pytest.approx(count.peaks["load"], rel=1e-3)
    there = max(walked.by_moment["forward"], walked.by_moment["loss"])
    moving = count.peaks["forward"] - count.peaks["load"]
    assert there - walked.by_moment["load"] == pytest.approx(moving, rel=0.03)  # what comes and goes, not what stands
    assert walked.peak == pytest.approx(max(count.peaks.values()), rel=0.02)
