"""What each cause is, as a formula with the user's numbers: for the page's hover, and for the page on memory that people read."""

from __future__ import annotations

from studio.config import RunConfig
from studio.memory.stack import Stack
from studio.memory.states import quantized_bytes
from studio.model import ModelFacts


def explain(causes: dict[str, int], facts: ModelFacts, config: RunConfig, loop: Stack) -> dict[str, str]:
    """Cause -> a sentence with numbers."""
    trainable = f"{config.method.trainable(facts):,}"
    held = config.method.quantized()
    each = 2 if config.training.weights == "bf16" else 4
    why = "bf16, rounded at random so that small steps are not lost" if each == 2 else "float32: small steps would be lost in 16 bits"
    bits = f"{loop.base} bytes each"
    if held:
        share = quantized_bytes((4096, 4096), held.kind, held.double) / 4096**2
        bits = f"{held.kind} for the layers' linears ({share:.4f} bytes a weight with its scales), {loop.base} bytes for the rest"
    return {
        "weights": f"The frozen weights, of {facts.parameters:,} in all: {bits}." if causes["weights"] else "No weight is frozen.",
        "trained": f"{trainable} trained numbers × {each} bytes ({why}).",
        "gradients": f"A gradient for each trained number: {trainable} × {each} bytes, from the first backward to the step.",
        "optimizer": f"{loop.optimizer}: mean and variance of each gradient, for {trainable} trained numbers.",
        "activations": f"{loop.batch} × {loop.length} = {loop.tokens:,} tokens; {_layers(facts, loop)}.",
        "logits": f"Head and loss, {facts.vocabulary:,} logits a position: {_positions(loop)}.",
        "workspace": "What is needed for a while: 16-bit copies of trained weights, gradients on their way, unpacked 4-bit weights, cuBLAS.",
        "overhead": "Python with its libraries, and the holes of its heap." if loop.device == "cpu" else
                    "The CUDA context, and what the allocator reserves beyond the tensors.",
    }


def _layers(facts: ModelFacts, loop: Stack) -> str:
    if loop.checkpointing:
        return (f"each of {facts.layers} layers keeps its input alone ({loop.stream} bytes × {facts.hidden} a token), "
                "and one layer at a time is walked again in backward")
    return (f"{facts.layers} layers keep what their backward reads: norms in float32, queries, keys, values, the {facts.intermediate} wide "
            "feed-forward, adapters' inputs")


def _positions(loop: Stack) -> str:
    if loop.head == "chunked":
        return f"for {loop.labels or loop.tokens:,} labelled positions, some at a time, the gradient formed at once"
    return "for all positions at once, in float32, with their softmax and two gradients"
