"""Model FLOP utilisation: the work a model's training asks for, by the time it took, by what one large matrix product
reaches here.

Counted is what the mathematics asks for, not what a program happens to do: recomputed activations, padding and a head
that is left out where no label is do not count (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

from collections.abc import Sequence

from studio.model import ModelFacts


def flops_per_token(facts: ModelFacts, whole: bool, lengths: Sequence[int]) -> float:
    """FLOP of a token's training. whole: every weight is trained; lengths: tokens of the rows.

    Forward 2 a weight and backward 2 for the gradient of its input; 2 more for its own where it is trained: 4N or 6N, N
    being the weights that stand in products (the linears and the head). Attention with a causal mask: 6 · layers ·
    width · the tokens a token's row has.
    """
    weights = (
        sum(inputs * outputs for inputs, outputs in facts.linears().values()) + facts.vocab_size * facts.hidden_size
    )
    seen = sum(length * length for length in lengths) / max(1, sum(lengths))
    return (
        6 if whole else 4
    ) * weights + 6 * facts.num_hidden_layers * facts.num_attention_heads * facts.head_dim * seen
