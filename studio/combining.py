"""Combining: the order that makes one adapter of several finished runs, with every refusal, and its start."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio import queue, run
from studio.base import shards
from studio.combination import DENSITY, EQUAL_RANKS, PRUNING, TYPES, Combination, HeldOut
from studio.config import RunConfig
from studio.errors import OrderError, RunError
from studio.methods import METHODS
from studio.methods.lora import BEYOND_PLAIN, LoRA
from studio.run import Run
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
    return queue.submit(order([run.find(one) for one in names], weights, how, density, name))


def order(
    runs: Sequence[Run],
    weights: Sequence[float] | None = None,
    how: str = "cat",
    density: float | None = None,
    name: str | None = None,
) -> RunConfig:
    """The complete order of a combination. weights: one a run, 1/n each unless told. density: of `ties` and `dare_…`, 0.5 unless
    told."""
    how, density = _way(how, density)
    found = voices(runs)
    ranks = [_rank(one) for one in found]
    if how in EQUAL_RANKS and len(set(ranks)) > 1:
        raise OrderError(
            f"{how} needs adapters of one rank, and these have {', '.join(f'{one.name}: {rank}' for one, rank in zip(found, ranks))}.",
            "Take cat or svd, which combine different ranks.",
            "how",
        )
    made = Combination(
        how=how,
        runs=tuple(one.id for one in runs),
        weights=_weights(weights, len(runs)),
        **({} if density is None else {"density": density}),
        held_out=tuple(section for one in runs for section in _held_out(one)),
    )
    first = runs[0].config
    method = _method(runs, sum(ranks) if how == "cat" else max(ranks))
    training = {"seed": first.training.seed}
    return RunConfig(
        name=name or f"combined {how}",
        model=first.model,
        data=first.data,
        method=method,
        training=training,
        combine=made,
    )


def voices(runs: Sequence[Run]) -> list[ModelReference]:
    """The runs' results. Raises RunError or ModelError where they are no plain LoRA adapters of one base that is still the same."""
    if len(runs) < 2 or len(runs) > MOST:
        raise RunError(
            f"Combining takes from 2 to {MOST} runs; named: {len(runs)}.",
            "Name each by its id or a unique part of it.",
            "run",
        )
    twice = next((one.id for place, one in enumerate(runs) if one.id in [other.id for other in runs[:place]]), None)
    if twice:
        raise RunError(f"{twice} is named twice.", "Name it once, and give it a larger weight.", "run")
    found = [_plain(one) for one in runs]
    prints = [one.manifest.get("base_fingerprint") or shards.fingerprint(one.base) for one in found]
    other = next((one for one, mark in zip(found, prints, strict=True) if mark != prints[0]), None)
    if other:
        raise RunError(
            f"{found[0].name} and {other.name} stand on different bases: {found[0].base.name} and {other.base.name} have other weights.",
            "Combine runs that were trained on one base model.",
            "run",
        )
    return found


def _way(how: str, density: float | None) -> tuple[str, float | None]:
    """The combination type and its density, checked against each other."""
    if how not in TYPES:
        raise OrderError(f"There is no way {how!r} to combine adapters.", f"Ways: {', '.join(TYPES)}.", "how")
    if how not in PRUNING:
        if density is not None:
            raise OrderError(
                f"{how} keeps every number: it has no density.",
                f"Leave the density out, or take {', '.join(PRUNING)}.",
                "density",
            )
        return how, None
    density = DENSITY if density is None else density
    if not isinstance(density, int | float) or not 0 < density <= 1:
        raise OrderError(
            f"The density is {density!r}.", "Give the share of numbers to keep: above 0, at most 1.", "density"
        )
    return how, float(density)


def _weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """One finite weight a run, not all zero. Negative ones take a change away."""
    if not weights:
        return (1 / count,) * count
    if len(weights) != count:
        raise OrderError(
            f"There are {count} runs and {len(weights)} weights.",
            "Give one weight for each run, in the same order: 0.5,0.5.",
            "weights",
        )
    bad = next((one for one in weights if not _is_weight(one)), None)
    if bad is not None or not any(weights):
        raise OrderError(
            "All weights are 0: nothing would be left of the adapters." if bad is None else f"A weight is {bad!r}.",
            f"Give numbers between -{LARGEST_WEIGHT:g} and {LARGEST_WEIGHT:g}, such as 0.5,0.5.",
            "weights",
        )
    return tuple(float(one) for one in weights)


def _is_weight(one: Any) -> bool:
    return (
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) and abs(one) <= LARGEST_WEIGHT
    )


def _plain(one: Run) -> ModelReference:
    """A finished run's adapter. Raises RunError in words where it is none that can be combined."""
    if one.alive() or one.state() == "queued":
        raise RunError(f"{one.id} is not over: it is {one.state()}.", "Wait until it has finished.", "run")
    method = one.config.method
    if not method.adapter:
        raise RunError(
            f"{one.id} has trained whole weights ({method.label}): it has no adapter to combine.",
            "Combine LoRA or QLoRA runs.",
            "run",
        )
    if not isinstance(method, LoRA):
        raise RunError(
            f"{one.id} was trained with {method.label}, and only the matrices of LoRA can be combined.",
            "Combine LoRA or QLoRA runs.",
            "run",
        )
    odd = _beyond(adapter_config(one.result)) if one.result.is_dir() else []
    found = resolve(one.id)  # last: it may have to fetch the base
    odd += ["new_tokens"] if found.manifest.get("own_tokenizer") else []
    if odd:
        raise RunError(
            f"The adapter of {one.id} is more than two plain matrices a layer: it has {', '.join(odd)}.",
            "Combine runs without DoRA, rsLoRA, biases, new words or modules trained in full.",
            "run",
        )
    return found


def _beyond(config: dict[str, Any]) -> list[str]:
    """What an adapter has beside two matrices a layer that are scaled by alpha / rank."""
    odd = [key for key in ("use_rslora", "trainable_token_indices", *BEYOND_PLAIN) if config.get(key)]
    return (
        odd
        + ["bias"] * (config.get("bias", "none") != "none")
        + [str(config.get("peft_type"))] * (config.get("peft_type") != "LORA")
    )


def adapter_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a result. Raises RunError where it cannot be read."""
    try:
        return json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{folder} holds no readable adapter_config.json.", "The result is damaged: train the run anew.", "run"
        ) from error


def _rank(one: ModelReference) -> int:
    return int(adapter_config(one.result)["r"])


def _held_out(one: Run) -> tuple[HeldOut, ...]:
    """A trained run's own; those of its parents for one that was combined itself."""
    config = one.config
    return (
        config.combine.held_out
        if config.combine
        else (HeldOut(run=one.id, data=config.data, seed=config.training.seed),)
    )


def _method(runs: Sequence[Run], rank: int) -> LoRA:
    """The method that loads the result: QLoRA where every run held the base in the same bits, else LoRA; scaled by 1 as peft writes it."""
    limit = next(one.le for one in LoRA.model_fields["rank"].metadata if hasattr(one, "le"))
    if rank > limit:
        raise OrderError(
            f"The ranks come to {rank} together, and {limit} is the most.",
            "Take svd, which keeps the largest of the ranks.",
            "how",
        )
    methods = [one.config.method for one in runs]
    wanted = [one.target_modules for one in methods]
    named = (
        wanted[0]
        if len(set(wanted)) == 1
        else "all-linear"
        if any(isinstance(one, str) for one in wanted)
        else tuple(dict.fromkeys(word for one in wanted for word in one))
    )
    same = all(type(one) is type(methods[0]) and one.quantized() == methods[0].quantized() for one in methods)
    kept = (
        {key: getattr(methods[0], key) for key in type(methods[0]).model_fields if key not in LoRA.model_fields}
        if same
        else {}
    )
    return METHODS[methods[0].name if same else "lora"](
        rank=rank, alpha=float(rank), dropout=0.0, target_modules=named, **kept
    )
