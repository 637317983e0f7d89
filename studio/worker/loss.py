"""Cross entropy at the target positions only: the head is applied there, a chunk at a time, and logits are never kept.

The value is that of the plain loss; masked positions cost no time and no memory. The gradient is formed during forward,
so that the head is applied only once (the idea of Liger's fused linear cross entropy, arXiv 2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from studio.kernels import IGNORE_INDEX
from studio.worker import dynamic_rope
from studio.worker.head import Head, HeadLosses, LogitTransform, apart, head_losses


def loss(
    model: Any,
    inputs: dict[str, Any],
    kind: str,
    dtype: torch.dtype,
    label_smoothing: float = 0.0,
    target_positions: torch.Tensor | None = None,
    correct: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """The loss summed over the labels of a batch (-100: none).

    kind: "chunked", or "full" as transformers computes it; inputs: those of the model, with labels; dtype: of the
    chunked loss's products; label_smoothing: as torch's cross_entropy has it (full only); target_positions: as
    target_indices(labels), where they are known, so that no GPU sync is needed (chunked only).
    correct: takes counts of labels that are the likeliest token, where no gradient is asked for.
    """
    labels = inputs["labels"]
    if kind == "chunked":

        def compute(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                return HeadLosses.apply(hidden, head.weight, head.bias, head.row_values, head, targets, True)
            return head_losses(hidden, head, targets, correct).sum()

        value, output = at_head(model, inputs, dtype, target_positions, compute)
        return value + router_loss(model, output, count_targets(labels))
    output = forward(model, inputs)
    logits = output.logits[:, -labels.shape[1] :]  # virtual tokens stand before the row's own
    if correct is not None:
        correct.append((logits[:, :-1].argmax(-1) == labels[:, 1:]).sum())
    with torch.autocast(logits.device.type, enabled=False):
        value = functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1),
            labels[:, 1:].flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
    return value + router_loss(model, output, count_targets(labels))


def count_targets(labels: torch.Tensor) -> torch.Tensor:
    return (labels[:, 1:] != IGNORE_INDEX).sum()


def router_loss(model: Any, output: Any, items: torch.Tensor | float) -> torch.Tensor | float:
    """The balancing loss of a model's experts in training, where its config.json asks for it (output_router_logits).

    As transformers adds it to the mean loss of a micro-batch, times the items that the mean is of.
    """
    return experts_balance(unwrap(model), output) * items if model.training else 0.0


def experts_balance(base: Any, output: Any) -> torch.Tensor | float:
    """What transformers adds to the loss of an output for the balance of its experts; 0 where nothing is asked for."""
    value = getattr(output, "aux_loss", None)
    coefficient = getattr(base, "router_aux_loss_coef", None) or getattr(base, "aux_loss_coef", None)  # jetmoe
    return 0.0 if value is None or coefficient is None else value * coefficient


def forward(model: Any, inputs: dict[str, Any]) -> Any:
    """The model's output for the inputs of a micro-batch.

    Padding is masked only where experts are balanced, over the tokens of the rows: attention is causal.
    """
    padding, ids = inputs.get("padding"), inputs["input_ids"]
    inputs = {key: value for key, value in inputs.items() if key not in ("labels", "padding")}
    if padding is not None and getattr(unwrap(model).config.get_text_config(), "output_router_logits", False):
        ends = ids.shape[1] - torch.tensor(padding, device=ids.device)
        inputs["attention_mask"] = (torch.arange(ids.shape[1], device=ids.device) < ends[:, None]).long()
    with dynamic_rope.padded(padding):
        return model(**inputs)


def target_indices(labels: torch.Tensor) -> torch.Tensor:
    """The indices into labels[:, 1:].flatten() that hold a label."""
    return (labels[:, 1:].flatten() != IGNORE_INDEX).nonzero().flatten()


def at_head(
    model: Any,
    inputs: dict[str, Any],
    dtype: torch.dtype,
    target_positions: torch.Tensor | None,
    compute: Callable[[Head, torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, Any]:
    """(compute(head, hidden [n, width], targets [n]) of the target positions, the output). The others: see `loss`."""
    base, labels = unwrap(model), inputs["labels"]
    positions = target_indices(labels) if target_positions is None else target_positions

    def compute_at_targets(module: Any, hidden: torch.Tensor) -> torch.Tensor:
        head = Head.of(module, LogitTransform.of(base.config), dtype)
        return compute(head, hidden[:, :-1].flatten(0, 1)[positions], labels[:, 1:].flatten()[positions])

    return in_place_of_head(model, inputs, compute_at_targets)


def in_place_of_head(
    model: Any, inputs: dict[str, Any], compute: Callable[[Any, torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, Any]:
    """(compute(the head's module, its input [rows, tokens, width]), the model's output).

    Called from a pre-hook on the head, which sees its input and leaves it one position to compute. Works for any
    decoder whose logits are head(hidden), under any peft method, and where the head's weight is whole only while the
    model runs (FSDP).
    """
    width = inputs["input_ids"].shape[1]
    results: list[torch.Tensor] = []

    def before_head(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = args[0][:, -width:]  # virtual tokens stand before the row's own
        with torch.autocast(hidden.device.type, enabled=False):
            results.append(compute(module, hidden))
        return (apart(args[0]),)

    hook = unwrap(model).get_output_embeddings().register_forward_pre_hook(before_head)
    try:
        output = forward(model, inputs)
    finally:
        hook.remove()
    return results[0], output


def unwrap(model: Any) -> Any:
    """The base model inside DDP and peft."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def context_length(model: Any, virtual_tokens: int) -> int:
    """Tokens of a row, or of a prompt with its answer, that the model has positions for."""
    config = unwrap(model).config.get_text_config()
    return int(getattr(config, "max_position_embeddings", 0) or 1 << 20) - virtual_tokens


def has_plain_linear_head(model: Any) -> bool:
    """Whether the head is an unquantized linear with no adapter but that of new tokens' rows (token_adapter)."""
    head = unwrap(model).get_output_embeddings()
    if getattr(head, "token_adapter", None):
        head = head.token_adapter.get_base_layer()
    return type(head) is torch.nn.Linear
