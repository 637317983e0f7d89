"""Combination: the part of an order that builds one adapter from those of finished runs, instead of training one."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.data.order import DataOrder

# peft's combination types and how each combines the changes ΔWᵢ = sᵢ·Bᵢ·Aᵢ with the weights wᵢ
TYPES = {
    "cat": "The exact weighted sum of the changes. Ranks may differ; the rank of the result is their sum.",
    "svd": (
        "The weighted sum of the changes, brought back to the largest of their ranks by singular values. "
        "Slow on large models."
    ),
    "linear": (
        "The matrices A and B are averaged apart: as small as one adapter, and only roughly the sum of the changes. "
        "Needs equal ranks."
    ),
    "ties": "TIES: small numbers are dropped and signs agreed on before A and B are averaged. Needs equal ranks.",
    "dare_linear": (
        "DARE: numbers are dropped at random, the others scaled up, before A and B are averaged. Needs equal ranks."
    ),
    "dare_ties": "DARE, then signs are agreed on as in TIES. Needs equal ranks.",
}
PRUNING = ("ties", "dare_linear", "dare_ties")  # those that take a density
EQUAL_RANKS = ("linear", *PRUNING)
DENSITY = 0.5


class HeldOut(BaseModel):
    """Where a trained run's held-out rows come from, so that they can be found when the run is gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run: str
    data: DataOrder
    seed: int


class Combination(BaseModel):
    """A combination as peft's add_weighted_adapter takes it. TIES: arXiv 2306.01708; DARE: arXiv 2311.03099."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    how: Literal["cat", "svd", "linear", "ties", "dare_linear", "dare_ties"] = "cat"
    runs: tuple[str, ...] = Field(min_length=2)
    weights: tuple[float, ...]
    density: float | None = Field(None, gt=0, le=1)  # the share of numbers that is kept
    held_out: tuple[HeldOut, ...] = ()

    def describe(self) -> str:
        """The runs, weights and combination type in one line."""
        parts = ", ".join(f"{name} × {weight:g}" for name, weight in zip(self.runs, self.weights, strict=True))
        return f"{parts} ({self.how}{f', density {self.density:g}' if self.density is not None else ''})"
