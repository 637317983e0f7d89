"""Model families whose rows we pack, and pad without a mask: held against transformers' own eager attention, each row
by itself.

Logits row by row, and the gradient of every weight. Families that are not proved here are padded, with transformers'
own attention and mask.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from studio import device
from studio.base import families as base_families
from studio.base import proved
from studio.errors import OrderError
from studio.methods import METHODS
from studio.training import Training
from studio.worker import attention
from studio.worker.packing import collate
from tests import families

attention.register()
LENGTHS = (5, 33, 17)
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "sliding_window": 128,
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_num_experts": 4,
    "moe_k": 2,
    "shared_expert_intermediate_size": 16,
    "attention_dropout": 0.0,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "hidden_dropout": 0.0,
    "residual_dropout": 0.0,
    "embedding_dropout": 0.0,
}


def model(family: str, kernel: str) -> torch.nn.Module:
    """A tiny one with random weights, the same for every kernel."""
    known = AutoConfig.for_model(family)
    names = {*known.to_dict(), *getattr(known, "attribute_map", {})}
    config = AutoConfig.for_model(family, **{name: value for name, value in SHAPE.items() if name in names})
    made = AutoModelForCausalLM.from_config(config, attn_implementation=kernel).eval()
    random = torch.Generator().manual_seed(1)
    for name, weight in made.named_parameters():
        torch.nn.init.normal_(
            weight,
            1.0 if "norm" in name and weight.dim() == 1 else 0.0,
            0.3 if weight.dim() > 1 else 0.2,
            generator=random,
        )
    return made


@pytest.mark.parametrize("family", sorted(families.ROWS))
def test_rows_are_as_alone(family: str) -> None:
    random = torch.Generator().manual_seed(3)
    rows = [
        {"input_ids": torch.randint(3, 100, (length,), generator=random).tolist(), "labels": [0] * length}
        for length in LENGTHS
    ]
    plain, ours = model(family, "eager"), model(family, attention.PACKED_ATTENTION)
    alone = [plain(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0] for row in rows]
    slopes = [torch.randn(one.shape, generator=random) for one in alone]
    sum((one * slope).sum() for one, slope in zip(alone, slopes, strict=True)).backward()
    for packed in (True, False):
        piece = collate(rows, packed)
        piece.pop("labels")
        out = ours(**{"use_cache": False, **piece}).logits
        found = (
            [out[0, start : start + length] for start, length in zip(piece["row_starts"], LENGTHS)]
            if packed
            else [out[place, :length] for place, length in enumerate(LENGTHS)]
        )
        for mine, theirs in zip(found, alone, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)
        ours.zero_grad()
        sum((one * slope).sum() for one, slope in zip(found, slopes, strict=True)).backward()
        for name, weight in plain.named_parameters():
            if weight.grad is not None:
                assert (ours.get_parameter(name).grad - weight.grad).norm() <= 1e-2 * weight.grad.norm() + 1e-4, name


def test_families_whose_layers_transformers_does_not_checkpoint() -> None:
    named = {kind: getattr(transformers, name) for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}
    without = {kind for kind, its_class in named.items() if not its_class.supports_gradient_checkpointing}
    assert without - base_families.ENCODERS == proved.NOT_CHECKPOINTED
    facts = SimpleNamespace(model_type="jetmoe", quantizer=None)
    with pytest.raises(OrderError, match="A jetmoe model does not work with gradient checkpointing"):
        METHODS["lora"]().refuse(facts, Training(checkpointing=True), device.cpu())
    assert not METHODS["lora"]().can_checkpoint(facts)
