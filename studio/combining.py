"""Combining adapters: check that finished runs can be combined, and build and queue the order."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio import queue, run
from studio.combination import DENSITY, EQUAL_RANKS, PRUNING, TYPES, Combination, HeldOut
from studio.config import RunConfig
from studio.errors import OrderError, RunError
from studio.methods import METHODS
from studio.methods.lora import BEYOND_PLAIN, LoRA
from studio.run import Run
from studio.runs import base_record
from studio.talk.reference import ModelReference, resolve

LARGEST_WEIGHT = 10.0
MOST = 16  # runs in one combination


def start(
    names: Sequence[str],
    weights: Sequence[float] | None = None,
    how: str = "cat",
    density: float | None = None,
    name: str | None = None,
) -> Run:
    """Queue a combination of runs. Raises RunError or OrderError for what cannot be combined, before a run exists."""
    return queue.submit(order([run.find(parent) for parent in names], weights, how, density, name))


def order(
    runs: Sequence[Run],
    weights: Sequence[float] | None = None,
    how: str = "cat",
    density: float | None = None,
    name: str | None = None,
) -> RunConfig:
    """The order of a combination.

    weights: one a run, 1/n each by default. density: of `ties` and `dare_…`, default 0.5.
    """
    density = _density(how, density)
    parents = resolve_parents(runs)
    ranks = [int(adapter_config(parent.result)["r"]) for parent in parents]
    if how in EQUAL_RANKS and len(set(ranks)) > 1:
        listed = ", ".join(f"{parent.name}: {rank}" for parent, rank in zip(parents, ranks, strict=True))
        hint = "Take cat or svd, which combine different ranks."
        raise OrderError(f"{how} needs adapters of one rank, and these have {listed}.", hint, "how")
    combination = Combination(
        how=how,
        runs=tuple(parent.id for parent in runs),
        weights=_weights(weights, len(runs)),
        density=density,
        held_out=tuple(section for parent in runs for section in _held_out(parent)),
    )
    first = runs[0].config
    return RunConfig(
        name=name or f"combined {how}",
        model=first.model,
        data=first.data,
        method=_method(runs, sum(ranks) if how == "cat" else max(ranks)),
        training={"seed": first.training.seed},
        combine=combination,
    )


def resolve_parents(runs: Sequence[Run]) -> list[ModelReference]:
    """Resolve the runs' results.

    Raises RunError or ModelError where they are no plain LoRA adapters of one unchanged base.
    """
    if len(runs) < 2 or len(runs) > MOST:
        hint = "Name each by its id or a unique part of it."
        raise RunError(f"Combining takes from 2 to {MOST} runs; named: {len(runs)}.", hint, "run")
    ids = [parent.id for parent in runs]
    twice = next((run_id for run_id in ids if ids.count(run_id) > 1), None)
    if twice:
        raise RunError(f"{twice} is named twice.", "Name it once, and give it a larger weight.", "run")
    parents = [_plain_adapter(parent) for parent in runs]
    first = parents[0]
    for parent in parents[1:]:
        record = parent.manifest if "base_fingerprint" in parent.manifest else base_record.of(parent.base)
        if difference := base_record.difference(record, first.base):
            raise RunError(
                f"{first.name} and {parent.name} stand on different bases: between {first.base.name} and "
                f"{parent.base.name} differ {difference}.",
                "Combine runs that were trained on one base model.",
                "run",
            )
    return parents


def _density(how: str, density: float | None) -> float | None:
    """The density of a combination type, None for those without one. Raises OrderError."""
    if how not in TYPES:
        raise OrderError(f"There is no way {how!r} to combine adapters.", f"Ways: {', '.join(TYPES)}.", "how")
    if how not in PRUNING:
        if density is not None:
            hint = f"Leave the density out, or take {', '.join(PRUNING)}."
            raise OrderError(f"{how} keeps every number: it has no density.", hint, "density")
        return None
    density = DENSITY if density is None else density
    if not isinstance(density, int | float) or not 0 < density <= 1:
        hint = "Give the share of numbers to keep: above 0, at most 1."
        raise OrderError(f"The density is {density!r}.", hint, "density")
    return float(density)


def _weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """One finite weight per run, not all zero. A negative one subtracts a change. Raises OrderError."""
    if not weights:
        return (1 / count,) * count
    if len(weights) != count:
        hint = "Give one weight for each run, in the same order: 0.5,0.5."
        raise OrderError(f"There are {count} runs and {len(weights)} weights.", hint, "weights")
    bad = next((weight for weight in weights if not _is_weight(weight)), None)
    if bad is not None or not any(weights):
        raise OrderError(
            "All weights are 0: nothing would be left of the adapters." if bad is None else f"A weight is {bad!r}.",
            f"Give numbers between -{LARGEST_WEIGHT:g} and {LARGEST_WEIGHT:g}, such as 0.5,0.5.",
            "weights",
        )
    return tuple(float(weight) for weight in weights)


def _is_weight(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) <= LARGEST_WEIGHT


def _plain_adapter(parent: Run) -> ModelReference:
    """A finished run's adapter. Raises RunError where it cannot be combined."""
    if parent.alive() or parent.state() == "queued":
        raise RunError(f"{parent.id} is not over: it is {parent.state()}.", "Wait until it has finished.", "run")
    method = parent.config.method
    if not method.adapter:
        message = f"{parent.id} has trained whole weights ({method.label}): it has no adapter to combine."
        hint = "Combine LoRA or QLoRA runs."
        raise RunError(message, hint, "run")
    if not isinstance(method, LoRA):
        message = f"{parent.id} was trained with {method.label}, and only the matrices of LoRA can be combined."
        hint = "Combine LoRA or QLoRA runs."
        raise RunError(message, hint, "run")
    extras = _extras(adapter_config(parent.result)) if parent.result.is_dir() else []
    reference = resolve(parent.id)  # last: it may have to fetch the base
    if reference.manifest.get("own_tokenizer"):
        extras.append("new_tokens")
    if extras:
        message = f"The adapter of {parent.id} is more than two plain matrices a layer: it has {', '.join(extras)}."
        hint = "Combine runs without DoRA, biases, new words or modules trained in full."
        raise RunError(message, hint, "run")
    return reference


def _extras(config: dict[str, Any]) -> list[str]:
    """What an adapter has besides A and B matrices and their scale."""
    extras = [key for key in ("trainable_token_indices", *BEYOND_PLAIN) if config.get(key)]
    if config.get("bias", "none") != "none":
        extras.append("bias")
    if config.get("peft_type") != "LORA":
        extras.append(str(config.get("peft_type")))
    return extras


def adapter_config(folder: Path) -> dict[str, Any]:
    """Read adapter_config.json of a result. Raises RunError."""
    try:
        return json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "The result is damaged: train the run anew."
        raise RunError(f"{folder} holds no readable adapter_config.json.", hint, "run") from error


def _held_out(parent: Run) -> tuple[HeldOut, ...]:
    """A trained run's held-out rows, or those of a combined run's own parents."""
    config = parent.config
    if config.combine:
        return config.combine.held_out
    return (HeldOut(run=parent.id, data=config.data, seed=config.training.seed),)


def _method(runs: Sequence[Run], rank: int) -> LoRA:
    """The method of the result: QLoRA where every run quantized the base alike, else LoRA; alpha = rank, as peft writes
    it.
    """
    limit = next(bound.le for bound in LoRA.model_fields["rank"].metadata if hasattr(bound, "le"))
    if rank > limit:
        hint = "Take svd, which keeps the largest of the ranks."
        raise OrderError(f"The ranks come to {rank} together, and {limit} is the most.", hint, "how")
    methods = [parent.config.method for parent in runs]
    first = methods[0]
    targets = [method.target_modules for method in methods]
    if len(set(targets)) == 1:
        target_modules = targets[0]
    elif any(isinstance(target, str) for target in targets):
        target_modules = "all-linear"
    else:
        target_modules = tuple(dict.fromkeys(module for target in targets for module in target))
    name, knobs = "lora", {}
    if all(type(method) is type(first) and method.quantized() == first.quantized() for method in methods):
        name = first.name
        knobs = {key: getattr(first, key) for key in type(first).model_fields if key not in LoRA.model_fields}
    return METHODS[name](rank=rank, alpha=float(rank), dropout=0.0, target_modules=target_modules, **knobs)
