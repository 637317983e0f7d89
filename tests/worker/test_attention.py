"""Packed rows give the logits that each gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from studio.worker import attention
from studio.worker.packing import collate

attention.register()
LENGTHS = (5, 33, 17)
SHAPES = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 8},
    "mistral": {"num_key_value_heads": 4, "sliding_window": None},
    "gpt_neox": {},
    "phi": {},
}


def model(kind: str, name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    plain = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 100,
        **SHAPES[kind],
    }
    config = AutoConfig.for_model(kind, **plain)
    made = AutoModelForCausalLM.from_config(config, attn_implementation=name).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return made


def together_and_alone(made: torch.nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rows = [{"input_ids": torch.randint(0, 100, (length,)).tolist(), "labels": [0] * length} for length in LENGTHS]
    micro_batch = collate(rows, packed=True)
    micro_batch.pop("labels")
    with torch.no_grad():
        packed = made(**micro_batch).logits[0]
        alone = [made(input_ids=torch.tensor([row["input_ids"]])).logits[0] for row in rows]
    starts = micro_batch["cu_seq_lens_q"].tolist()
    return [(packed[start : start + len(one)], one) for start, one in zip(starts, alone)]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", ["packed", "sdpa"])
def test_no_row_sees_another(kind: str, name: str) -> None:
    for packed, alone in together_and_alone(model(kind, name)):
        torch.testing.assert_close(packed, alone, atol=2e-4, rtol=1e-3)


def test_long_rows_take_the_flash_kernel_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MATMUL_ATTENTION_MAX_TOKENS", 16)
    for packed, alone in together_and_alone(model("llama", "packed")):
        torch.testing.assert_close(packed, alone, atol=2e-4, rtol=1e-3)


def test_gradients_are_those_of_sdpa() -> None:
    torch.manual_seed(1)
    where = torch.tensor([0, 12, 40], dtype=torch.int32)
    given = [torch.randn(1, heads, 40, 8, requires_grad=True) for heads in (4, 2, 2)]
    out = attention.packed_attention(None, *given, None, cu_seq_lens_q=where, max_length_q=28)[0]
    grad_output = torch.randn_like(out)
    ours = torch.autograd.grad(out, given, grad_output)
    mask = torch.block_diag(torch.ones(12, 12), torch.ones(28, 28)).tril().bool()
    plain = torch.nn.functional.scaled_dot_product_attention(*given, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(out, plain, atol=1e-5, rtol=1e-4)
    for mine, theirs in zip(ours, torch.autograd.grad(plain, given, grad_output), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


class Lengths(TorchDispatchMode):
    """Tokens of the rows whose products are formed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func._overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.baddbmm):
            self.seen.add(args[-1].shape[1])
        return func(*args, **(kwargs or {}))


def test_rows_of_like_length_share_their_kernels_in_16_bits() -> None:
    """oneDNN and torch keep kernels for every length of their own, some 3 MB, as long as the process lives."""
    torch.manual_seed(1)
    where = torch.tensor([0, 12, 26, 57, 89], dtype=torch.int32)
    given = [torch.randn(1, heads, 89, 8, requires_grad=True) for heads in (4, 2, 2)]
    whole = attention.packed_attention(None, *given, None, cu_seq_lens_q=where, max_length_q=32)[0]
    grad_output = torch.randn_like(whole)
    with Lengths() as lengths:
        narrow = attention.packed_attention(
            None, *(tensor.bfloat16() for tensor in given), None, cu_seq_lens_q=where, max_length_q=32
        )[0]
        mine = torch.autograd.grad(narrow, given, grad_output.bfloat16())
    assert lengths.seen <= {8, 16, 32, 64}  # 8: the width of a head; 64: two heads share a key
    torch.testing.assert_close(narrow.float(), whole, atol=0.05, rtol=0.05)
    for one, other in zip(mine, torch.autograd.grad(whole, given, grad_output), strict=True):
        torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)


def test_generation_works_without_the_places(tiny_model: Path) -> None:
    ids = torch.tensor([[5, 6, 7]])
    answers = []
    for name in ("packed", "sdpa"):
        made = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation=name).eval()
        answers.append(
            made.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False).tolist()
        )
    assert answers[0] == answers[1]
