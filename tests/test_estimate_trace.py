"""The estimate against real training steps of the real models, methods and loss, run under fake tensors that are
counted, not computed.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from studio import model
from studio.base.tensors import Tensor
from studio.memory.architecture import read_architecture
from studio.memory.states import states
from studio.memory.step import step
from studio.memory.training_loop import TrainingLoop
from studio.methods import METHODS
from studio.worker import attention as attention_of_ours
from studio.worker import fast_lora
from studio.worker.decoder_layers import FirstLayersOnly
from studio.worker.loss import loss, unwrap
from studio.worker.packing import collate
from tests.memory_trace import Count, Unrolled

BATCH, LENGTH, LAYERS, BLOCK = 4, 256, 3, 64
TINY = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 8000,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
}
OWN = {
    "gpt2": {"n_embd": 256, "n_layer": LAYERS, "n_head": 4, "n_positions": 1024, "vocab_size": 8000, "attn_pdrop": 0.0},
    "bloom": {"hidden_size": 256, "n_layer": LAYERS, "n_head": 4, "vocab_size": 8000},
}
MORE = {
    "llama": {"tie_word_embeddings": True},
    "phi": {"num_key_value_heads": 4},
    "opt": {"ffn_dim": 1024, "word_embed_proj_dim": 256},
    "qwen3": {"head_dim": 64},
    "gemma2": {"head_dim": 64},
    "gemma3_text": {"head_dim": 64},
    "stablelm": {"num_key_value_heads": 4},
}
LORA = {"name": "lora"}
PLAIN = {"name": "lora", "target_modules": "q-v", "dropout": 0.0}
PAIRS = [  # family, method, checkpointing, attention, loss, bytes of products (0: float32 throughout)
    ("llama", LORA, False, "sdpa", "chunked", 2),
    ("llama", LORA, True, "sdpa", "full", 2),
    ("llama", PLAIN, True, "sdpa", "chunked", 2),
    ("llama", LORA, False, "eager", "chunked", 2),
    ("llama", LORA, True, "eager", "chunked", 0),
    ("llama", {"name": "full"}, True, "sdpa", "chunked", 2),
    ("llama", {"name": "full"}, True, "eager", "chunked", 0),
    ("llama", {"name": "ia3"}, True, "sdpa", "chunked", 2),
    ("llama", {"name": "prefix", "init": "random"}, False, "sdpa", "chunked", 2),
    ("llama", {"name": "prompt", "init": "random"}, True, "sdpa", "chunked", 2),
    ("llama", {"name": "p_tuning"}, False, "sdpa", "chunked", 2),
    ("llama", {"name": "lora", "dora": True}, False, "sdpa", "chunked", 2),
    ("mistral", {"name": "lora", "rank": 128, "modules_to_save": ["lm_head"]}, True, "sdpa", "chunked", 2),
    ("qwen2", PLAIN, False, "sdpa", "chunked", 2),
    ("qwen3", LORA, False, "sdpa", "chunked", 2),
    ("gemma2", LORA, False, "eager", "chunked", 2),
    ("gemma3_text", LORA, False, "sdpa", "chunked", 2),
    ("phi3", {"name": "adapter"}, False, "sdpa", "chunked", 2),
    ("phi", LORA, False, "sdpa", "chunked", 2),
    ("gpt_neox", LORA, False, "sdpa", "chunked", 2),
    ("gpt2", LORA, False, "sdpa", "chunked", 2),
    ("olmo2", LORA, False, "sdpa", "chunked", 2),
    ("stablelm", LORA, False, "sdpa", "chunked", 2),
    ("starcoder2", {"name": "full"}, True, "sdpa", "chunked", 2),
    ("granite", LORA, False, "sdpa", "chunked", 2),
    ("opt", LORA, False, "sdpa", "chunked", 2),
    ("bloom", LORA, False, "sdpa", "chunked", 2),
    ("mixtral", LORA, False, "sdpa", "chunked", 2),
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


def config_of(family: str):
    return AutoConfig.for_model(family, **(OWN[family] if family in OWN else TINY | MORE.get(family, {})))


def built(config, method, checkpointing: bool, kernel: str, dtype: torch.dtype, mode: FakeTensorMode):
    """The model as the trainer wraps it: shapes on the meta device first (peft cannot wrap fake tensors), then fake
    ones on the CPU.
    """
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=kernel)
        made.requires_grad_(False)
        made = method.wrap(made)
    base = made.get_base_model() if hasattr(made, "get_base_model") else made
    with mode:
        for module in made.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = torch.nn.Parameter(
                        torch.empty(weight.shape, dtype=weight.dtype, device="cpu"), weight.requires_grad
                    )
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
        base.tie_weights()
    made.train()
    base.config.use_cache = False
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        if method.adapter:
            base.enable_input_require_grads()
    fast_lora.speed_up_lora(made, dtype == torch.bfloat16)
    return made


def traced(config, method, checkpointing: bool, kernel: str, kind: str, autocast: bool, kept: int = 0) -> Count:
    """A counted step: standing weights and states, forward with the trainer's loss, backward."""
    mode, count, dtype = (
        FakeTensorMode(allow_non_fake_inputs=True),
        Count(BLOCK),
        torch.bfloat16 if autocast else torch.float32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = built(config, method, checkpointing, kernel, dtype, mode)
        if kept:
            FirstLayersOnly(unwrap(made), LAYERS - kept).on_train_begin(None, None, None)
        with mode, Unrolled(), count, contextlib.ExitStack() as stack:
            for weight in made.parameters():
                count.add(weight)
            kept = [torch.empty_like(weight) for weight in made.parameters() if weight.requires_grad for _ in range(2)]
            ids = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
            count.moment = "forward"
            stack.enter_context(fast_lora.narrow_copies(made, dtype))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                total = loss(
                    made,
                    {"input_ids": ids, "labels": ids},
                    kind,
                    dtype,
                    target_positions=torch.arange(BATCH * (LENGTH - 1)),
                )
            count.moment = "backward"
            total.backward()
            assert kept is not None
    return count


def name(pair) -> str:
    family, knobs, checkpointing, kernel, kind, each = pair
    return "-".join(
        [family, knobs["name"], *map(str, list(knobs)[1:]), kernel, kind, f"{each}"] + ["checkpointed"] * checkpointing
    )


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_peak_and_standing(pair) -> None:
    family, knobs, checkpointing, kernel, kind, each = pair
    method = METHODS[knobs["name"]](**{key: value for key, value in knobs.items() if key != "name"})
    config = config_of(family)
    with torch.device("meta"):
        shapes = {
            key: tuple(weight.shape) for key, weight in AutoModelForCausalLM.from_config(config).named_parameters()
        }
    told = json.loads(json.dumps(config.to_dict(), default=str))
    facts = model.from_config(told, {key: Tensor(dtype="BF16", shape=shape) for key, shape in shapes.items()})
    footprint, base = method.footprint(facts), each or 4
    loop = TrainingLoop(
        device="cpu",
        batch=BATCH,
        length=LENGTH,
        labels=BATCH * (LENGTH - 1),
        weight_itemsize=base,
        hidden_itemsize=4 if not method.adapter else base,
        autocast_itemsize=each,
        attention=kernel,
        mask=False,
        repeats_kv=False,
        checkpointing=checkpointing,
        head=kind,
        input_grads=checkpointing and method.adapter,
        adapters_in_place=True,
    )
    walked = step(read_architecture(facts), loop, footprint, states(facts, footprint, loop))
    count = traced(config, method, checkpointing, "eager" if kernel == "eager" else "unmasked", kind, bool(each))
    assert walked.standing == pytest.approx(count.peaks["load"], rel=2e-3)
    moving = max(count.peaks.values()) - count.peaks["load"]
    assert walked.peak - walked.standing == pytest.approx(moving, rel=0.03)  # what comes and goes, not what stands


@pytest.mark.parametrize("kept", [1, 2])
def test_some_layers_checkpointed(kept: int) -> None:
    """The last ones keep their activations."""
    method, config = METHODS["lora"](), config_of("llama")
    with torch.device("meta"):
        weights = AutoModelForCausalLM.from_config(config).named_parameters()
    shapes = {key: Tensor(dtype="BF16", shape=tuple(weight.shape)) for key, weight in weights}
    facts = model.from_config(json.loads(json.dumps(config.to_dict(), default=str)), shapes)
    loop = TrainingLoop(
        device="cpu",
        batch=BATCH,
        length=LENGTH,
        labels=BATCH * (LENGTH - 1),
        attention="sdpa",
        mask=False,
        repeats_kv=False,
        checkpointing=True,
        kept_layers=kept,
        input_grads=True,
        adapters_in_place=True,
    )
    footprint = method.footprint(facts)
    walked = step(read_architecture(facts), loop, footprint, states(facts, footprint, loop))
    count = traced(config, method, True, "unmasked", "chunked", True, kept)
    moving = max(count.peaks.values()) - count.peaks["load"]
    assert walked.peak - walked.standing == pytest.approx(moving, rel=0.03)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some layers on the disk: what bitsandbytes packs and our own attention reads must be there."""
    folder = tmp_path_factory.mktemp("model")
    AutoModelForCausalLM.from_config(config_of("llama"), dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def scales(weight) -> list[torch.Tensor]:
    """What lies beside a packed weight."""
    state = getattr(weight, "quant_state", None)
    found = [] if state is None else [state.absmax, state.code, getattr(state, "offset", None)]
    inner = getattr(state, "state2", None)
    return [item for item in [*found, *([inner.absmax, inner.code] if inner else [])] if isinstance(item, torch.Tensor)]


@pytest.mark.parametrize(
    ("knobs", "kernel", "checkpointing"),
    [
        ({"name": "qlora"}, "sdpa", False),
        ({"name": "qlora", "double_quant": False, "dropout": 0.0}, "sdpa", True),
        ({"name": "lora"}, "packed", False),
        ({"name": "full"}, "packed", True),
    ],
    ids=str,
)
def test_on_real_tensors(small: Path, knobs: dict, kernel: str, checkpointing: bool) -> None:
    """4-bit weights, and rows laid end to end under our own attention, which fake tensors cannot run."""
    attention_of_ours.register()
    method = METHODS[knobs["name"]](**{key: value for key, value in knobs.items() if key != "name"})
    facts = model.facts(small)
    footprint, whole = method.footprint(facts), not method.adapter
    made = method.wrap(method.load(small, torch.bfloat16, attn_implementation=kernel))
    fast_lora.speed_up_lora(made, True)
    base = made.get_base_model() if hasattr(made, "get_base_model") else made
    base.config.use_cache = False
    made.train()
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        if not whole:
            base.enable_input_require_grads()
    rows = [{"input_ids": [5] * LENGTH, "labels": [5] * LENGTH} for _ in range(2)]
    inputs = collate(rows, kernel == "packed")
    batch, width = inputs["input_ids"].shape
    labels = int((inputs["labels"][:, 1:] != -100).sum())
    loop = TrainingLoop(
        device="cpu",
        batch=batch,
        length=width,
        longest_row=LENGTH,
        labels=labels,
        weight_itemsize=2,
        hidden_itemsize=4 if whole else 2,
        autocast_itemsize=2,
        attention=kernel,
        mask=False,
        repeats_kv=False,
        checkpointing=checkpointing,
        input_grads=checkpointing and not whole,
        adapters_in_place=True,
    )
    walked = step(read_architecture(facts), loop, footprint, states(facts, footprint, loop))
    count = Count(BLOCK)
    with Unrolled(), count:
        for weight in made.parameters():
            for tensor in (weight, *scales(weight)):
                count.add(tensor)
        kept = [torch.empty_like(weight) for weight in made.parameters() if weight.requires_grad for _ in range(2)]
        count.moment = "forward"
        with fast_lora.narrow_copies(made, torch.bfloat16):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                total = loss(made, inputs, "chunked", torch.bfloat16)
            count.moment = "backward"
            total.backward()
        assert kept is not None
    assert walked.standing == pytest.approx(count.peaks["load"], rel=2e-3)
    assert walked.peak - walked.standing == pytest.approx(max(count.peaks.values()) - count.peaks["load"], rel=0.03)
