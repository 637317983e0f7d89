"""What each cause is, as a formula with the user's numbers."""

from __future__ import annotations

from studio.config import RunConfig
from studio.memory.states import quantized_bytes
from studio.memory.training_loop import TrainingLoop
from studio.model import ModelFacts


def explain(causes: dict[str, int], facts: ModelFacts, config: RunConfig, loop: TrainingLoop) -> dict[str, str]:
    """Cause -> a sentence with numbers. The page says them in its languages: each is one of few patterns."""
    trainable, itemsize = f"{config.method.trainable(facts):,}", 2 if config.training.weights == "bf16" else 4
    share = f"1 of {loop.world_size} parts; " if loop.fsdp else ""
    return {
        "weights": share + _weights(facts, config, loop) if causes["weights"] else "No weight is frozen.",
        "trained": share
        + (
            f"{trainable} trained numbers × {itemsize} bytes (bf16, rounded at random so that small steps are not "
            "lost)."
            if itemsize == 2
            else f"{trainable} trained numbers × {itemsize} bytes (float32: small steps would be lost in 16 bits)."
        ),
        "gradients": share
        + f"A gradient for each trained number: {trainable} × {itemsize} bytes, from the first backward to the step.",
        "optimizer": share + f"{loop.optimizer}: what it keeps of each gradient, for {trainable} trained numbers.",
        "activations": _activations(facts, loop),
        "logits": f"Head and loss, {facts.vocab_size:,} logits a position, for {loop.labels or loop.tokens:,} "
        "labelled positions, some at a time."
        if loop.head == "chunked"
        else f"Head and loss, {facts.vocab_size:,} logits a position, for all {loop.tokens:,} at once, in float32, "
        "with their softmax and two gradients.",
        "workspace": "What is needed for a while: 16-bit copies of trained weights, gradients on their way, "
        "unpacked 4-bit weights, cuBLAS.",
        "overhead": "Python with its libraries, and the holes of its heap."
        if loop.device == "cpu"
        else "The CUDA context, and what the allocator reserves beyond the tensors.",
    }


def _weights(facts: ModelFacts, config: RunConfig, loop: TrainingLoop) -> str:
    quantization = config.method.quantized()
    if not quantization:
        return f"{facts.parameters:,} weights of the model, the frozen ones × {loop.weight_itemsize} bytes."
    itemsize = quantized_bytes((4096, 4096), quantization.kind, quantization.double) / 4096**2
    return (
        f"{facts.parameters:,} weights of the model: {quantization.kind} for the layers ({itemsize:.4f} bytes a weight "
        f"with its scales), {loop.weight_itemsize} bytes for the rest."
    )


def _activations(facts: ModelFacts, loop: TrainingLoop) -> str:
    tokens = f"{loop.batch} × {loop.length} = {loop.tokens:,} tokens"
    if loop.kept_layers:
        checkpointed = facts.num_hidden_layers - loop.kept_layers
        return (
            f"{tokens}; {checkpointed} of {facts.num_hidden_layers} layers keep their input alone and are walked again "
            "in backward, the others keep what their backward reads."
        )
    if loop.checkpointing:
        return (
            f"{tokens}; each of {facts.num_hidden_layers} layers keeps its input ({loop.hidden_itemsize} bytes × "
            f"{facts.hidden_size} a token), "
            "and one at a time is walked again in backward."
        )
    return (
        f"{tokens}; {facts.num_hidden_layers} layers keep what their backward reads: norms, queries, keys, values, "
        f"the feed-forward {facts.intermediate_size} wide, "
        "adapters' inputs."
    )
