"""Examine: what the doctor does in each part, with the trainer's and the model server's own code. A part returns its words and figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from studio import device
from studio.driver import fit
from studio.methods import METHODS
from studio.worker import examine_memory, random_model, torch_devices, trial
from studio.worker.apart import Wrong, alone
from studio.worker.examine_memory import Bench, can

LOSS, COSINE = 3e-2, 0.99  # how far losses may lie apart, and how far gradients must point the same way
STEPS, WORDS = 3, 8
PATIENCE = 150  # seconds for one variant
SMALL = "HuggingFaceTB/SmolLM2-135M"
Found = tuple[str, dict[str, Any]]


def part(bench: Bench, name: str) -> Found:
    """Do one part by its name. Raises Skipped or Wrong, or whatever went wrong in it."""
    if name in METHODS:
        return method(bench, name)
    if name.startswith("memory-"):
        return examine_memory.memory(bench, name.removeprefix("memory-"))
    return {"devices": devices, "resume": resume, "chat": examine_memory.chat, "speed": examine_memory.speed}[name](
        bench
    )


def devices(bench: Bench) -> Found:
    """What driver and torch see, and whether they agree."""
    first, said = device.devices()[0], torch_devices.inspect()
    figures = {"driver": [one.model_dump(mode="json") for one in device.devices()], "torch": said}
    if first.traits.cards:
        fit.store_answer(first, said)
    found = fit.misfit(first)
    if found:
        raise Wrong(f"{found.text} {found.hint}", figures)
    if first.kind == "cpu":
        bf16 = "computes in bf16" if first.bf16 else "has no bf16 products and trains in float32"
        return (
            f"No graphics card that torch can use: training goes on {first.name}, {first.cores} cores, which {bf16}.",
            figures,
        )
    seen = said["devices"][0] if said["devices"] else {}
    if first.traits.cards and seen.get("memory") and not first.shared and abs(seen["memory"] / first.memory - 1) > 0.15:
        raise Wrong(
            f"The driver says {first.memory / 2**30:.1f} GiB for {first.name}, torch {seen['memory'] / 2**30:.1f} GiB: they mean unlike cards.",
            figures,
        )
    return f"Driver and torch both see {first.name}; it trains in {first.precision}.", figures


# -- the methods


class Variant(NamedTuple):
    """A way to train: precision, rows packed or padded, activations kept or computed again. plain: with the method's own knobs, dropout too."""

    precision: str
    packing: bool
    checkpointing: bool
    plain: bool = False

    def told(self) -> str:
        words = [self.precision, "packed" if self.packing else "padded", "checkpointed" if self.checkpointing else ""]
        return "with its default settings" if self.plain else ", ".join(word for word in words if word)


def variants(name: str, first: device.Device, short: bool) -> Iterator[Variant]:
    """Precisions the device can, packed and padded, checkpointed and not; one after the other is changed, not all in all."""
    kind = METHODS[name]
    packings = [True, False] if kind.allows_packing else [False]
    for packing in packings:
        yield Variant(first.precision, packing, False)
    if kind.allows_checkpointing:
        yield from (Variant(first.precision, packing, True) for packing in (packings[:1] if short else packings))
    others = {"bf16": first.bf16, "fp16": first.traits.fp16 and first.kind != "cpu", "fp32": True}
    yield from (Variant(one, packings[0], False) for one, can in others.items() if can and one != first.precision)
    yield Variant(first.precision, packings[0], False, True)


def method(bench: Bench, name: str) -> Found:
    """A few steps on the device in each variant against the same steps on the CPU in float32, padded; each in a process of its own."""
    first, still = (
        device.devices()[0],
        {"name": name, **({"dropout": 0.0} if "dropout" in METHODS[name].model_fields else {})},
    )
    can(name, first)
    plan = Steps(bench, still, bench.work / f"{name}.pt")
    reference = alone(_reference, (plan,), PATIENCE)
    if reference.state != "ok":
        raise Wrong(f"Even on the CPU: {reference.why}", reference.figures)
    figures: dict[str, Any] = {"reference": reference.figures["losses"], "variants": []}
    for one in variants(name, first, bench.short):
        outcome = alone(
            _compared, (plan, one), PATIENCE
        )  # a variant that crashes is an answer; the others are asked all the same
        found = (
            outcome.figures
            if outcome.state == "ok"
            else {"loss_difference": None, "cosine": None, "losses": [], "wrong": outcome.why, **outcome.figures}
        )
        figures["variants"].append({**one._asdict(), "name": one.told(), **found})
    wrong = [f"{one['name']}: {one['wrong']}" for one in figures["variants"] if one["wrong"]]
    if wrong:
        raise Wrong(
            f"{METHODS[name].label} is wrong in {len(wrong)} of {len(figures['variants'])} variants. {'; '.join(wrong)[:600]}",
            figures,
        )
    compared = [one for one in figures["variants"] if not one["plain"]]
    far, alike = max(one["loss_difference"] for one in compared), min(one["cosine"] for one in compared)
    return (
        f"{len(figures['variants'])} variants learn what the CPU learns in float32: losses within {far:.1g}, gradients alike to {alike:.4f}.",
        figures,
    )


class Steps(NamedTuple):
    """What every variant of a method does. still: the method without dropout; kept: the file of the reference's start and gradient."""

    bench: Bench
    still: dict[str, Any]
    kept: Path

    def order(self, method: dict[str, Any], **settings: Any) -> dict[str, Any]:
        return trial.order(
            small_model(self.bench),
            random_model.rows(self.bench.work / "rows.json", 12, WORDS),
            method,
            STEPS,
            **settings,
        )


def _reference(plan: Steps) -> Found:
    with trial.on_cpu():
        done = trial.carry(plan.order(plan.still, precision="fp32", packing=False, checkpointing=False))
    torch.save({"start": done.start, "gradient": done.gradient, "losses": done.losses}, plan.kept)
    return "", {"losses": done.losses}


def _compared(plan: Steps, one: Variant) -> Found:
    """How far a variant lies from the reference, and what is wrong with it."""
    reference = torch.load(plan.kept)
    if one.plain:
        done = trial.carry(plan.order({"name": plan.still["name"]}, probe=True))
    else:
        done = trial.carry(
            plan.order(plan.still, precision=one.precision, packing=one.packing, checkpointing=one.checkpointing),
            reference["start"],
        )
    difference = max(abs(mine - its) for mine, its in zip(done.losses, reference["losses"], strict=True))
    alike, wrong = trial.cosine(done.gradient, reference["gradient"]), []
    if not all(map(math.isfinite, done.losses)):
        wrong.append(f"the loss is not a number ({done.losses})")
    if not one.plain and difference > LOSS:
        wrong.append(f"the loss is off by {difference:.3f}")
    if not one.plain and one.packing and not done.plan()["packing"]:
        wrong.append(f"packed, {done.plan()['why']['packing']}")
    if not one.plain and alike < COSINE:
        wrong.append(f"the gradient points elsewhere (cosine {alike:.3f})")
    resolved = {
        key: done.plan().get(key)
        for key in ("device", "precision", "packing", "checkpointing", "attention", "optimizer", "loss")
    }
    return "", {
        "loss_difference": difference,
        "cosine": round(alike, 6),
        "losses": done.losses,
        "seconds": round(done.seconds, 2),
        "wrong": " and ".join(wrong),
        "settled": resolved,
    }


def small_model(bench: Bench) -> Path:
    """Two layers of a real shape; a shallow one of little width where it should be short."""
    narrow = (
        {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1}
        if bench.short
        else {}
    )
    return bench.model(SMALL, num_hidden_layers=2, vocab_size=384, **narrow)


def resume(bench: Bench) -> Found:
    """A run stopped in its middle and resumed against one that was left alone: the same losses, the same result."""
    model, data = small_model(bench), random_model.rows(bench.work / "rows.json", 12, WORDS)
    order = trial.order(model, data, {"name": "lora"}, 4)
    whole = trial.carry(order)
    stopped = trial.carry(order, whole.start, stop_at=2)
    if stopped.end().get("state") != "stopped":
        raise Wrong(f"A run that was asked to stop ended as {stopped.end().get('state')}.", {"end": stopped.end()})
    again = trial.carry(order, again=stopped)
    losses = [event["loss"] for event in again.diary if event["kind"] == "step"]
    apart = max(abs(one - other) for one, other in zip(whole.losses, losses, strict=True))
    one, other = (load_file(run.folder.result / "adapter_model.safetensors") for run in (whole, again))
    same = all(torch.equal(weight, other[name]) for name, weight in one.items())
    far = max(
        float((weight.float() - other[name].float()).norm() / weight.float().norm().clamp_min(1e-12))
        for name, weight in one.items()
    )
    figures = {"losses": whole.losses, "resumed": losses, "bit_identical": same, "weights_apart": far}
    if apart > LOSS or far > 0.05:
        raise Wrong(f"After a resume the losses lie {apart:.3f} apart and the weights {far:.1%}.", figures)
    return (
        f"Stopped after step 2 and resumed: {'the very same weights' if same else f'weights within {far:.1g}'}, losses within {apart:.1g}.",
        figures,
    )
