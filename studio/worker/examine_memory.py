"""The doctor's parts on memory, speed and chat: peak against estimate, tokens a second, memory given back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from studio import config, device
from studio import model as models
from studio.errors import OrderError
from studio.estimate import estimate
from studio.forecast import utilisation
from studio.memory.studio_loop import RowStatistics
from studio.methods import METHODS
from studio.talk import chat as server
from studio.worker import matmul_flops, random_model, trial
from studio.worker.isolation import START, PartFailed, PartSkipped, run_isolated

LLAMA = "meta-llama/Llama-3.2-1B"
QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
SMOL = "HuggingFaceTB/SmolLM2-360M"
LESS = "HuggingFaceTB/SmolLM2-135M"
ON_CARDS = ((LLAMA, {}), (QWEN, {}), (SMOL, {}), (LESS, {}))  # the largest first
ON_CPU = ((LESS, {"num_hidden_layers": 6}), (LESS, {"num_hidden_layers": 2}))
SHORT = ((LESS, {"num_hidden_layers": 1, "vocab_size": 4096}),)
ROOM = 0.8  # largest expected share of the free memory
TOO_MUCH = 1.10  # largest measured share of the estimate's upper bound


@dataclass(frozen=True)
class Bench:
    """The doctor's work folder and sizes. short: smaller models and fewer of them."""

    work: Path
    short: bool

    def model(self, name: str, **changes: Any) -> Path:
        """A random model in a real shape, written once."""
        parts = [name.rpartition("/")[2], *(f"{key[4:8]}{value}" for key, value in changes.items())]
        folder = self.work / "models" / "-".join(parts)
        if not (folder / "tokenizer.json").is_file():
            random_model.write(folder, name, **changes)
        return folder

    def rows(self) -> Path:
        """Rows that are all as long as they may be."""
        return random_model.rows(self.work / "long.json", 16, self.length // 4, alike=True)

    def sizes(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        if self.short:
            return SHORT
        return ON_CARDS if device.devices()[0].traits.cards else ON_CPU

    @property
    def length(self) -> int:
        """About the number of tokens in a row."""
        if self.short:
            return 64
        return 512 if device.devices()[0].traits.cards else 96


def shape(name: str, changes: dict[str, Any]) -> models.ModelFacts:
    """A model's facts before it is written."""
    return models.from_config({**json.loads(random_model.SHAPES.read_text())[name], **changes})


def can(method: str, first: device.Device) -> None:
    """Raise PartSkipped for a method that this device does not support."""
    try:
        METHODS[method]().refuse(None, None, first)
    except OrderError as refused:
        raise PartSkipped(str(refused)) from refused


# -- memory


def memory(bench: Bench, method: str) -> tuple[str, dict[str, Any]]:
    """Compare estimated and measured memory (allocator's and driver's, or the kernel's) for the two largest sizes."""
    first = device.devices()[0]
    can(method, first)
    # a forked child is not charged for libraries mapped before the fork, 120 MiB that a run has: spawn on a CPU
    start = START if first.traits.cards else "spawn"
    cases = []
    for name, changes in _fitting(bench, method)[:2]:
        outcome = run_isolated(_made, (bench, name, changes), 200)  # whoever has computed must not fork
        before, lowest = first.free, [first.free]
        if outcome.state == "ok":
            with _watched(lowest):
                outcome = run_isolated(_case, (bench, method, name, changes), 200, start)
        if outcome.state != "ok":
            raise PartFailed(f"{METHODS[method].label} on {name}: {outcome.why}", {"cases": cases, **outcome.figures})
        cases.append(
            {**outcome.figures, "driver": before - min(lowest) if first.traits.cards and not first.shared else None}
        )
    for case in cases:
        case["error"] = round(case["estimated"] / case["measured"] - 1, 4)
        case["above_bound"] = case["measured"] > TOO_MUCH * case["high"]
    summary = "; ".join(
        f"{case['model']} ({case['parameters'] / 1e6:.0f}M): {case['estimated'] / 2**30:.2f} GiB estimated, "
        f"{case['measured'] / 2**30:.2f} measured ({case['error']:+.1%})"
        for case in cases
    )
    if any(case["above_bound"] for case in cases):
        raise PartFailed(f"It takes more than the estimate's upper bound. {summary}.", {"cases": cases})
    return f"{summary}.", {"cases": cases}


def _order(bench: Bench, model: Path | str, data: Path | str, method: str) -> dict[str, Any]:
    return trial.order(
        Path(model),
        Path(data),
        {"name": method},
        2,
        batch_size=4 if bench.length > 256 else 2,
        accumulation=1,
        threads="auto",
    )


def _fitting(bench: Bench, method: str) -> list[tuple[str, dict[str, Any]]]:
    """The models that the estimate finds room for, the largest first. Raises PartSkipped where it finds none."""
    order, length, first = config.build(_order(bench, "/none", "none.json", method)), bench.length, device.devices()[0]
    rows = RowStatistics(16, 16 * length, 16 * length, length)
    fitting = []
    for name, changes in bench.sizes():
        guess = estimate(shape(name, changes), order, first, rows)
        if guess.high < ROOM * guess.free:
            fitting.append((name, changes))
    if not fitting:
        raise PartSkipped(
            f"None of the doctor's models would fit: {first.free / 2**30:.1f} GiB of {first.name} are free."
        )
    return fitting


def _made(bench: Bench, name: str, changes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    bench.model(name, **changes)
    return "", {}


def _case(bench: Bench, method: str, name: str, changes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Run once: {estimated, high, measured, allocated, …} in bytes reserved, or counted by the kernel."""
    model, data = bench.model(name, **changes), bench.rows()
    done = trial.run_trial(_order(bench, model, data, method), watched=False)
    plan, peaks = done.plan(), done.end()["memory_by_phase"]
    expected, most = plan["expected"], max(peaks.values(), key=lambda phase: next(iter(phase.values())))
    facts, rows = models.facts(model), plan["statistics"]
    guess = estimate(facts, config.build(_order(bench, model, data, method)), device.devices()[0], rows)
    return "", {
        "model": name,
        "parameters": facts.parameters,
        "method": method,
        "tokens_of_a_row": rows["max"],
        "estimated": int((expected["total"] - expected["context"]) / expected["correction"]),
        "high": guess.high - guess.context,
        "measured": next(iter(most.values())),
        "estimated_allocated": expected["allocated"],
        "allocated": most.get("allocated"),
        "estimated_on_the_device": expected["total"],
        "checkpointing": plan["checkpointing"],
    }


@contextmanager
def _watched(lowest: list[int]) -> Iterator[None]:
    """Append the driver's free memory to `lowest` five times a second."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(0.2):
            lowest.append(device.devices()[0].free)

    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    try:
        yield
    finally:
        ended.set()
        poller.join()


# -- speed


def speed(bench: Bench) -> tuple[str, dict[str, Any]]:
    """Measure tokens a second of a LoRA, and its FLOP/s as a share of a large matrix product's."""
    first = device.devices()[0]
    name, changes = _fitting(bench, "lora")[0]
    model, data = bench.model(name, **changes), bench.rows()
    order = _order(bench, model, data, "lora")
    order["training"] |= {"max_steps": 4 if bench.short else 8}
    done = trial.run_trial(order, watched=False)
    steps = [event for event in done.events if event["kind"] == "step"]
    warm = steps[1:] if bench.short else steps[3:]
    rate = len(warm) / sum(1 / event["tokens_per_second"] for event in warm)
    rows = done.plan()["statistics"]
    work = utilisation.flops_per_token(models.facts(model), False, [rows["tokens"] // rows["rows"]])
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[first.precision]
    most = matmul_flops.measure(first.torch, dtype, 512 if bench.short else None, 0.3 if bench.short else 2.0)
    figures = {
        "model": name,
        "tokens_per_second": round(rate, 1),
        "flops_per_token": work,
        "ceiling": most,
        "utilisation": round(rate * work / most, 4),
    }
    return (
        f"LoRA on {name}: {rate:,.0f} tokens a second, {figures['utilisation']:.0%} of what a large product reaches "
        f"({most / 1e12:.2f} TFLOP/s).",
        figures,
    )


# -- chat


def chat(bench: Bench) -> tuple[str, dict[str, Any]]:
    """Load a model into the model server, ask it, unload it, end the server; its memory must come back."""
    first, (name, changes) = device.devices()[0], bench.sizes()[-1]
    model_name = f"base:{bench.model(name, **changes)}"
    handle, free_memory = server.server(), {"before": _free(first)}
    try:
        handle.load([model_name])
        free_memory["loaded"], ram_loaded = _free(first), handle.status()["memory"]
        usage = {}
        for delta in handle.stream(model_name, [{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0):
            usage = delta.usage or usage
        handle.unload([model_name])
        time.sleep(0.5)
        free_memory["unloaded"], ram_unloaded = _free(first), handle.status()["memory"]
    finally:
        server.end()
    time.sleep(0.5)
    free_memory["ended"] = _free(first)
    figures = {
        "free": free_memory,
        "server_loaded": ram_loaded,
        "server_unloaded": ram_unloaded,
        **{key: usage.get(key) for key in ("tokens", "first_token_seconds", "tokens_per_second")},
    }
    if not usage.get("tokens"):
        raise PartFailed("The model server gave no answer.", figures)
    if first.traits.cards and not first.shared:
        weights = sum(file.stat().st_size for file in Path(model_name.removeprefix("base:")).glob("*.safetensors"))
        told = _given_back(figures, weights)
    else:
        gone = max(0, ram_loaded - ram_unloaded) / 2**20
        told = f"unloading gave {gone:.0f} MiB back, and its end all {ram_loaded / 2**20:.0f}."
    return f"It answers ({usage['tokens']} tokens); {told}", figures


def _given_back(figures: dict[str, Any], weights: int) -> str:
    """How much of a card's memory came back, in words. weights: bytes. Raises PartFailed where too little did."""
    free = figures["free"]
    taken, back, all_back = (free[moment] - free["loaded"] for moment in ("before", "unloaded", "ended"))
    if back < 0.8 * min(weights, taken) or all_back < 0.95 * taken:
        raise PartFailed(
            f"Loading took {taken / 2**20:.0f} MiB; unloading gave {back / 2**20:.0f} MiB back, "
            f"ending the server {all_back / 2**20:.0f}.",
            figures,
        )
    return (
        f"unloading gave {back / 2**20:.0f} of {taken / 2**20:.0f} MiB back, ending the server {all_back / 2**20:.0f}."
    )


def _free(first: device.Device) -> int:
    return next((card.free for card in device.devices() if card.id == first.id), 0)
