"""The doctor's parts, by the trainer's and the model server's own code: each returns a sentence and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from studio import device
from studio.driver import fit
from studio.methods import METHODS
from studio.stages import STAGES
from studio.worker import examine_memory, random_model, torch_devices, trial
from studio.worker.examine_memory import Bench, can
from studio.worker.isolation import PartFailed, run_isolated_if_cheap

LOSS = 3e-2  # largest difference of losses
COSINE = 0.99  # smallest cosine of gradients
STEPS, WORDS = 3, 8
VARIANT_LIMIT = 150  # seconds for one variant
WRITTEN = {"rewards": [{"name": "length", "at_least": 20}], "group": 4, "max_new_tokens": 16}
SMALL = "HuggingFaceTB/SmolLM2-135M"
Found = tuple[str, dict[str, Any]]


def part(bench: Bench, name: str) -> Found:
    """Run one part by its name. Raises PartSkipped, PartFailed, or whatever goes wrong in it."""
    if name in METHODS:
        return method(bench, name)
    if name in STAGES:
        return stage(bench, name)
    if name.startswith("memory-"):
        return examine_memory.memory(bench, name.removeprefix("memory-"))
    return {"devices": devices, "resume": resume, "chat": examine_memory.chat, "speed": examine_memory.speed}[name](
        bench
    )


def devices(bench: Bench) -> Found:
    """Compare what the driver and torch see."""
    first, seen_by_torch = device.devices()[0], torch_devices.inspect()
    figures = {"driver": [entry.model_dump(mode="json") for entry in device.devices()], "torch": seen_by_torch}
    if first.traits.cards:
        fit.store_answer(first, seen_by_torch)
    misfit = fit.misfit(first)
    if misfit:
        raise PartFailed(f"{misfit.text} {misfit.hint}", figures)
    if first.kind == "cpu":
        bf16 = "computes in bf16" if first.bf16 else "has no bf16 products and trains in float32"
        return (
            f"No graphics card that torch can use: training goes on {first.name}, {first.cores} cores, which {bf16}.",
            figures,
        )
    memory = (seen_by_torch["devices"] or [{}])[0].get("memory")
    if first.traits.cards and memory and not first.shared and abs(memory / first.memory - 1) > 0.15:
        raise PartFailed(
            f"The driver says {first.memory / 2**30:.1f} GiB for {first.name}, torch {memory / 2**30:.1f} GiB: "
            "they mean unlike cards.",
            figures,
        )
    return f"Driver and torch both see {first.name}; it trains in {first.precision}.", figures


# -- the methods


class Variant(NamedTuple):
    """A way to train: precision, packed or padded rows, activation checkpointing. plain: with the method's defaults."""

    precision: str
    packing: bool
    checkpointing: bool
    plain: bool = False

    def describe(self) -> str:
        words = [self.precision, "packed" if self.packing else "padded", "checkpointed" if self.checkpointing else ""]
        return "with its default settings" if self.plain else ", ".join(word for word in words if word)


def variants(name: str, first: device.Device, short: bool) -> Iterator[Variant]:
    """Yield variants of precision, packing and checkpointing; each differs from the first in one setting."""
    kind = METHODS[name]
    packings = [True, False] if kind.allows_packing else [False]
    for packing in packings:
        yield Variant(first.precision, packing, False)
    if kind.allows_checkpointing:
        yield from (Variant(first.precision, packing, True) for packing in (packings[:1] if short else packings))
    others = {"bf16": first.bf16, "fp16": first.traits.fp16 and first.kind != "cpu", "fp32": True}
    yield from (
        Variant(precision, packings[0], False)
        for precision, can in others.items()
        if can and precision != first.precision
    )
    yield Variant(first.precision, packings[0], False, True)


def method(bench: Bench, name: str) -> Found:
    """The method in each variant, as `compared` does."""
    first, knobs = device.devices()[0], {"name": name}
    if "dropout" in METHODS[name].model_fields:
        knobs["dropout"] = 0.0
    can(name, first)
    return compared(
        Steps(bench, knobs, bench.work / f"{name}.pt"), METHODS[name].label, variants(name, first, bench.short)
    )


def stage(bench: Bench, name: str) -> Found:
    """The stage with LoRA, packed and padded. What a stage writes itself is sampled, and so only lived through."""
    precision, kind = device.devices()[0].precision, STAGES[name]
    knobs = {"name": name, **(WRITTEN if kind.generates else {})}
    plan = Steps(bench, {"name": "lora", "dropout": 0.0}, bench.work / f"{name}.pt", knobs)
    both = [Variant(precision, True, False), Variant(precision, False, True)]
    return compared(plan, kind.label, both if not kind.generates else [Variant(precision, True, False, True)])


def compared(plan: Steps, label: str, several: Iterable[Variant]) -> Found:
    """Compare a few steps in each variant on the device with the same steps on the CPU in float32, padded."""
    reference = run_isolated_if_cheap(_reference, (plan,), VARIANT_LIMIT)
    if reference.state != "ok":
        raise PartFailed(f"Even on the CPU: {reference.why}", reference.figures)
    figures: dict[str, Any] = {"reference": reference.figures["losses"], "variants": []}
    for variant in several:
        outcome = run_isolated_if_cheap(_compare, (plan, variant), VARIANT_LIMIT)
        result = outcome.figures
        if outcome.state != "ok":  # a crash is a result too; the other variants still run
            result = {"loss_difference": None, "cosine": None, "losses": [], "wrong": outcome.why, **result}
        figures["variants"].append({**variant._asdict(), "name": variant.describe(), **result})
    results = figures["variants"]
    wrong = [f"{result['name']}: {result['wrong']}" for result in results if result["wrong"]]
    if wrong:
        raise PartFailed(
            f"{label} is wrong in {len(wrong)} of {len(results)} variants. {'; '.join(wrong)[:600]}", figures
        )
    alike = [result for result in results if not result["plain"]]
    if not alike:
        return f"{len(results[0]['losses'])} steps with its default settings.", figures
    difference = max(result["loss_difference"] for result in alike)
    cosine = min(result["cosine"] for result in alike)
    return (
        f"{len(results)} variants learn what the CPU learns in float32: losses within {difference:.1g}, "
        f"gradients alike to {cosine:.4f}.",
        figures,
    )


class Steps(NamedTuple):
    """The steps of every variant. method: its knobs without dropout. reference: the file of the reference's results."""

    bench: Bench
    method: dict[str, Any]
    reference: Path
    stage: dict[str, Any] | None = None

    def order(self, method: dict[str, Any], **settings: Any) -> dict[str, Any]:
        examples = STAGES[self.stage["name"]].examples if self.stage else "answers"
        rows = random_model.rows(self.bench.work / "rows.json", 12, WORDS, examples=examples)
        return trial.order(small_model(self.bench), rows, method, STEPS, self.stage, **settings)


def _reference(plan: Steps) -> Found:
    with trial.on_cpu():
        result = trial.run_trial(plan.order(plan.method, precision="fp32", packing=False, checkpointing=False))
    torch.save({"start": result.start, "gradient": result.gradient, "losses": result.losses}, plan.reference)
    return "", {"losses": result.losses}


def _compare(plan: Steps, variant: Variant) -> Found:
    """Run a variant and list what is wrong with it compared to the reference."""
    reference = torch.load(plan.reference)
    if variant.plain:
        result = trial.run_trial(plan.order({"name": plan.method["name"]}, probe=True))
    else:
        settings = {key: getattr(variant, key) for key in ("precision", "packing", "checkpointing")}
        result = trial.run_trial(plan.order(plan.method, **settings), reference["start"])
    difference = max(abs(mine - its) for mine, its in zip(result.losses, reference["losses"], strict=True))
    cosine, run_plan, wrong = trial.cosine(result.gradient, reference["gradient"]), result.plan(), []
    if not all(map(math.isfinite, result.losses)):
        wrong.append(f"the loss is not a number ({result.losses})")
    if not variant.plain and difference > LOSS:
        wrong.append(f"the loss is off by {difference:.3f}")
    if not variant.plain and variant.packing and not run_plan["packing"]:
        wrong.append(f"packed, {run_plan['why']['packing']}")
    if not (variant.plain or cosine >= COSINE):
        wrong.append(f"the gradient points elsewhere (cosine {cosine:.3f})")
    keys = ("device", "precision", "packing", "checkpointing", "attention", "optimizer", "loss")
    return "", {
        "loss_difference": difference,
        "cosine": round(cosine, 6),
        "losses": result.losses,
        "seconds": round(result.seconds, 2),
        "wrong": " and ".join(wrong),
        "settled": {key: run_plan.get(key) for key in keys},
    }


def small_model(bench: Bench) -> Path:
    """A model of two layers in a real shape, narrower for the short form."""
    narrow = (
        {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1}
        if bench.short
        else {}
    )
    return bench.model(SMALL, num_hidden_layers=2, vocab_size=384, **narrow)


def resume(bench: Bench) -> Found:
    """Compare a run that is stopped and resumed with one that is not: losses and weights must agree."""
    model, data = small_model(bench), random_model.rows(bench.work / "rows.json", 12, WORDS)
    order = trial.order(model, data, {"name": "lora"}, 4)
    whole = trial.run_trial(order)
    stopped = trial.run_trial(order, whole.start, stop_at=2)
    if stopped.end().get("state") != "stopped":
        raise PartFailed(f"A run that was asked to stop ended as {stopped.end().get('state')}.", {"end": stopped.end()})
    resumed = trial.run_trial(order, again=stopped)
    losses = [event["loss"] for event in resumed.events if event["kind"] == "step"]
    loss_difference = max(abs(first - second) for first, second in zip(whole.losses, losses, strict=True))
    expected, actual = (load_file(run.folder.result / "adapter_model.safetensors") for run in (whole, resumed))
    same = all(torch.equal(weight, actual[name]) for name, weight in expected.items())
    weight_difference = max(
        float((weight.float() - actual[name].float()).norm() / weight.float().norm().clamp_min(1e-12))
        for name, weight in expected.items()
    )
    figures = {"losses": whole.losses, "resumed": losses, "bit_identical": same, "weights_apart": weight_difference}
    if loss_difference > LOSS or weight_difference > 0.05:
        raise PartFailed(
            f"After a resume the losses lie {loss_difference:.3f} apart and the weights {weight_difference:.1%}.",
            figures,
        )
    weights = "the very same weights" if same else f"weights within {weight_difference:.1g}"
    return f"Stopped after step 2 and resumed: {weights}, losses within {loss_difference:.1g}.", figures
