"""Models with experts, states or eyes: what is trained is what was counted, and plain peft and transformers read it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.conversion_mapping import _MODEL_TO_CONVERSION_PATTERN
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from studio import device, model
from studio.base import families, targets
from studio.base.shards import weight_files
from studio.config import build
from studio.errors import OrderError
from studio.methods import METHODS
from studio.resolve import resolve as resolved
from studio.talk.reference import resolve
from studio.worker.base_model import check_loads_again, wrap_base
from studio.worker.export import merged
from studio.worker.loaded import LoadedModels
from studio.worker.sampling import Sampling
from tests import tiny
from tests.methods import architectures
from tests.methods.architectures import GROUPED
from tests.worker.test_export import logits, trained

IDS = torch.arange(5, 25)[None]
TEXT = {**GROUPED, "head_dim": 8}
EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 2,
    "topk_group": 2,
    "first_k_dense_replace": 1,
}
LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
}
SEES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 28,
    "patch_size": 14,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "deepseek_v3": {**TEXT, **EXPERTS, **LATENT},  # peft takes gate_proj for the stacked experts
    "falcon_h1": {**TEXT, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    "granitemoe": {**TEXT, "num_local_experts": 4, "num_experts_per_tok": 2},  # its router is a linear
    "llama4_text": {**TEXT, "num_local_experts": 2, "intermediate_size_mlp": 64},  # its router returns two tensors
    "gemma4_text": {  # its rope is none that transformers 4 knows
        **TEXT,
        "global_head_dim": 8,
        "num_global_key_value_heads": 2,
        "vocab_size_per_layer_input": 400,
        "hidden_size_per_layer_input": 8,
        "sliding_window": 8,
    },
    "deepseek_v4": {  # its o_a_proj is block-diagonal
        **TEXT,
        **EXPERTS,
        "layer_types": ["sliding_attention", "compressed_sparse_attention"],
        "mlp_layer_types": ["moe", "moe"],
        "num_key_value_heads": 1,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "o_groups": 2,
        "o_lora_rank": 8,
        "hc_mult": 2,
        "index_n_heads": 2,
        "index_head_dim": 8,
    },
    "laguna": {**TEXT, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "ctrl": {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 64},  # its table is called w
    "moshi": {**TEXT, "num_key_value_heads": 4, "ffn_dim": 64},  # its table has a row more than its vocabulary
    "moss_transcribe_diarize": {  # tied, though the config inside says that it is not
        "text_config": {**TEXT, "tie_word_embeddings": False},
        "audio_config": {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32},
        "tie_word_embeddings": True,
    },
    "gemma3": {
        "text_config": {**TEXT, "query_pre_attn_scalar": 8, "sliding_window": 8},
        "vision_config": SEES,
        "mm_tokens_per_image": 4,
    },
}


def write(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **CONFIGS[kind])
    auto = AutoModelForImageTextToText if "vision_config" in CONFIGS[kind] else AutoModelForCausalLM
    base = auto.from_config(config).float()
    with torch.no_grad():
        for weight in base.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, 0.0, 0.1)
    base.save_pretrained(folder)
    tiny.tokenizer().save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: stored.get_tensor(name)
        for file in weight_files(folder)
        for stored in [safe_open(file, "pt")]
        for name in stored.keys()  # noqa: SIM118
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_lora_means_the_same_elsewhere(kind: str, home: Path, tmp_path: Path) -> None:
    base = write(tmp_path / "base", kind)
    facts, loaded = model.facts(base), METHODS["lora"]().load(base, torch.float32)
    chosen = targets.choose("all-linear", facts.linears())
    assert set(chosen.values()) == set(targets.choose("all-linear", targets.live(loaded)).values())
    wrapped = METHODS["lora"]().wrap(loaded)
    assert METHODS["lora"]().trainable(facts) == sum(w.numel() for w in wrapped.parameters() if w.requires_grad)
    found = resolve(trained(base).id)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = logits(peft.PeftModel.from_pretrained(plain, str(found.result)).eval(), IDS)
    ours = logits(LoadedModels("cpu", torch.float32).load(found).model, IDS)
    torch.testing.assert_close(ours, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    merged(found, tmp_path / "out")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(whole, IDS), expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)
    before, after = tensors(base), tensors(tmp_path / "out")
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before if targets.NOT_TEXT.search(name))


def test_a_result_that_peft_could_not_load_again_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers renames `shared_expert.` of laguna's checkpoints, and with it the names of an adapter's weights."""
    base = write(tmp_path / "base", "laguna")
    monkeypatch.setattr(families, "MISREAD", {})
    lora = METHODS["lora"]()
    with pytest.raises(ValueError, match=r"it looks for .*shared_experts\.\."):
        check_loads_again(lora.wrap(lora.load(base, torch.float32)))


def test_a_table_trained_whole_hands_on_the_bases_dtype(home: Path, tmp_path: Path) -> None:
    """layer_norm takes no float32 under weights of 16 bits, and autocast on a CPU does not widen them."""
    base = architectures.write(tmp_path / "base", "gpt2")
    method = {"name": "lora", "modules_to_save": ["wte", "lm_head"]}
    ordered = build({"model": str(base), "data": {"train": "sample"}, "method": method})
    rows = {"rows": 2, "tokens": 40, "trained": 20, "max": 20}
    settings = resolved(ordered, model.facts(base), device.cpu(), rows)
    settings = settings._replace(dtype="bfloat16", autocast="bfloat16")
    tuned = wrap_base(ordered, settings, ordered.method.load(base, torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert logits(tuned.eval(), IDS).isfinite().all()


def test_names_that_peft_takes_for_something_else() -> None:
    """The lists against transformers' and peft's own tables."""
    from peft.utils.transformers_weight_conversion import _MOE_TARGET_MODULE_MAPPING

    for kind, pattern in _MODEL_TO_CONVERSION_PATTERN.items():
        assert families.not_for_lora(kind) == frozenset(_MOE_TARGET_MODULE_MAPPING.get(pattern, ())), kind
    assert not families.not_for_lora("llama")


def test_a_prefix_is_refused_where_nothing_takes_it(tiny_model: Path) -> None:
    """Such a run failed once the model was loaded. The list against the signatures of transformers' own classes."""
    classes = {kind: getattr(transformers, name, None) for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}
    without = {
        kind
        for kind, made in classes.items()
        if made and "past_key_values" not in inspect.signature(made.forward).parameters
    }
    written = {kind for kind in without if not families.why_no_decoder({"model_type": kind})}
    assert written == families.WITHOUT_CACHE
    facts = model.facts(tiny_model)
    for kind in ("mamba", "openai-gpt"):
        one = facts.model_copy(update={"model_type": kind})
        with pytest.raises(OrderError, match=f"a {kind} model takes none"):
            METHODS["prefix"]().refuse(one, None, device.cpu())


def test_a_name_that_means_the_experts_is_refused(tmp_path: Path) -> None:
    facts = model.facts(write(tmp_path / "base", "deepseek_v3"))
    with pytest.raises(OrderError, match="no LoRA on 'gate_proj' of a deepseek_v3 model"):
        METHODS["lora"](target_modules="q_a_proj, gate_proj").trained(facts)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("mamba2", {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "expand": 2}),
        ("recurrent_gemma", {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16}),
        ("minimax", {"num_local_experts": 2, "num_experts_per_tok": 2, "block_size": 16}),
        (  # whose forward counts positions from 0 in every call
            "bamba",
            {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1},
        ),
    ],
)
def test_a_family_with_states_of_its_own_answers_as_generate(
    kind: str, changes: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    CONFIGS[kind] = {**TEXT, **changes}
    loaded_model = LoadedModels("cpu", torch.float32).load(resolve(f"base:{write(tmp_path / 'base', kind)}"))
    running = [
        loaded_model.answer([{"role": "user", "content": text}], Sampling(max_tokens=9, temperature=0, logprobs=0))
        for text in ("Hello?", "What is the capital of France?" * 9)
    ]
    for answer in running:
        while loaded_model.batch.prefill(answer) is None:
            pass
    while loaded_model.batch.answers:
        loaded_model.batch.step()
    for answer in running:
        ids = torch.tensor([answer.prompt_ids])
        expected = loaded_model.model.generate(
            ids,
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=[*answer.end_ids],
            return_dict_in_generate=True,
            output_logits=True,
        )
        assert answer.output_ids == expected.sequences[0, ids.shape[1] :].tolist()
        logprobs = [float(logits[0].log_softmax(-1).max()) for logits in expected.logits]
        assert [row["logprob"] for row in answer.logprobs] == pytest.approx(logprobs, abs=1e-3)
