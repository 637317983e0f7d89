"""Examine memory and speed: a run's peak against its estimate, tokens a second, and what the model server gives back."""

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
from studio.bench import utilisation
from studio.errors import OrderError
from studio.estimate import estimate
from studio.memory.studio_loop import RowStatistics
from studio.methods import METHODS
from studio.talk import chat as server
from studio.worker import matmul_flops, random_model, trial
from studio.worker.apart import START, Skipped, Wrong, apart

LLAMA, QWEN, SMOL, LESS = (
    "meta-llama/Llama-3.2-1B",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "HuggingFaceTB/SmolLM2-360M",
    "HuggingFaceTB/SmolLM2-135M",
)
ON_CARDS = ((LLAMA, {}), (QWEN, {}), (SMOL, {}), (LESS, {}))  # the largest first
ON_CPU = ((LESS, {"num_hidden_layers": 6}), (LESS, {"num_hidden_layers": 2}))
SHORT = ((LESS, {"num_hidden_layers": 1, "vocab_size": 4096}),)
ROOM = 0.8  # of what is free, that a case may be expected to take
TOO_MUCH = 1.10  # of the estimate's upper bound: more than that, and a run that was said to fit would have died


@dataclass(frozen=True)
class Bench:
    """Where the doctor works. short: smaller and fewer."""

    work: Path
    short: bool

    def model(self, name: str, **changes: Any) -> Path:
        """A random model in a real shape; made once."""
        folder = (
            self.work
            / "models"
            / "-".join([name.rpartition("/")[2], *(f"{key[4:8]}{value}" for key, value in changes.items())])
        )
        if not (folder / "tokenizer.json").is_file():
            random_model.write(folder, name, **changes)
        return folder

    def sizes(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        return SHORT if self.short else ON_CARDS if device.devices()[0].traits.cards else ON_CPU

    @property
    def length(self) -> int:
        """Tokens of a row, about."""
        return 64 if self.short else 512 if device.devices()[0].traits.cards else 96


def shape(name: str, changes: dict[str, Any]) -> models.ModelFacts:
    """A model's facts before it is made."""
    return models.from_config({**json.loads(random_model.SHAPES.read_text())[name], **changes})


def can(method: str, first: device.Device) -> None:
    """Raise Skipped for a method that this device is known not to do."""
    try:
        METHODS[method]().refuse(None, None, first)
    except OrderError as refused:
        raise Skipped(str(refused)) from refused


# -- memory


def memory(bench: Bench, method: str) -> tuple[str, dict[str, Any]]:
    """Estimated against measured, for the two largest sizes that fit: by torch's allocator and by the driver, by the kernel on a CPU."""
    first = device.devices()[0]
    can(method, first)
    start = (
        START if first.traits.cards else "spawn"
    )  # of libraries mapped before a fork the kernel counts no page to the child: 120 MiB fewer than a run has
    cases = []
    for name, changes in [one for one in bench.sizes() if _fits(bench, method, *one)][:2]:
        outcome = apart(_made, (bench, name, changes), 200)  # whoever has computed must not fork
        before, lowest = first.free, [first.free]
        if outcome.state == "ok":
            with _watched(lowest):
                outcome = apart(_case, (bench, method, name, changes), 200, start)
        if outcome.state != "ok":
            raise Wrong(f"{METHODS[method].label} on {name}: {outcome.why}", {"cases": cases, **outcome.figures})
        cases.append(
            {**outcome.figures, "driver": before - min(lowest) if first.traits.cards and not first.shared else None}
        )
    if not cases:
        raise Skipped(f"None of the doctor's models would fit: {first.free / 2**30:.1f} GiB of {first.name} are free.")
    for one in cases:
        one["error"] = round(one["estimated"] / one["measured"] - 1, 4)
        one["above_bound"] = one["measured"] > TOO_MUCH * one["high"]
    told = "; ".join(
        f"{one['model']} ({one['parameters'] / 1e6:.0f}M): {one['estimated'] / 2**30:.2f} GiB estimated, {one['measured'] / 2**30:.2f} measured "
        f"({one['error']:+.1%})"
        for one in cases
    )
    if any(one["above_bound"] for one in cases):
        raise Wrong(f"It takes more than the estimate's upper bound. {told}.", {"cases": cases})
    return f"{told}.", {"cases": cases}


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


def _fits(bench: Bench, method: str, name: str, changes: dict[str, Any]) -> bool:
    order, length = config.build(_order(bench, "/none", "none.json", method)), bench.length
    guess = estimate(
        shape(name, changes), order, device.devices()[0], RowStatistics(16, 16 * length, 16 * length, length)
    )
    return guess.high < ROOM * guess.free


def _made(bench: Bench, name: str, changes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    bench.model(name, **changes)
    return "", {}


def _case(bench: Bench, method: str, name: str, changes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """One run, in a process of its own: {estimated, high, measured, allocated, …}; bytes, as the allocator reserves (a CPU: as the kernel counts)."""
    model, data = (
        bench.model(name, **changes),
        random_model.rows(bench.work / "long.json", 16, bench.length // 4, alike=True),
    )
    done = trial.carry(_order(bench, model, data, method), watched=False)
    plan, peaks = done.plan(), done.end()["memory_by_phase"]
    expected, most = plan["expected"], max(peaks.values(), key=lambda one: next(iter(one.values())))
    facts, rows = models.facts(model), plan["statistics"]
    guess = estimate(facts, config.build(_order(bench, model, data, method)), device.devices()[0], rows)
    return "", {
        "model": name,
        "parameters": facts.parameters,
        "method": method,
        "tokens_of_a_row": rows["max"],
        "estimated": expected["total"] - expected["context"],
        "high": guess.high - guess.context,
        "measured": next(iter(most.values())),
        "estimated_allocated": expected["allocated"],
        "allocated": most.get("allocated"),
        "estimated_on_the_device": expected["total"],
        "checkpointing": plan["checkpointing"],
    }


@contextmanager
def _watched(lowest: list[int]) -> Iterator[None]:
    """Meanwhile the driver is asked what is free, five times a second."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            lowest.append(device.devices()[0].free)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


# -- speed


def speed(bench: Bench) -> tuple[str, dict[str, Any]]:
    """Tokens a second of a LoRA, and which share of one large matrix product's speed its mathematics is."""
    first = device.devices()[0]
    fitting = [one for one in bench.sizes() if _fits(bench, "lora", *one)]
    if not fitting:
        raise Skipped(f"None of the doctor's models would fit: {first.free / 2**30:.1f} GiB of {first.name} are free.")
    name, changes = fitting[0]
    model, data = (
        bench.model(name, **changes),
        random_model.rows(bench.work / "long.json", 16, bench.length // 4, alike=True),
    )
    order = _order(bench, model, data, "lora")
    order["training"] |= {"max_steps": 4 if bench.short else 8}
    done = trial.carry(order, watched=False)
    steps = [event for event in done.diary if event["kind"] == "step"]
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
        f"LoRA on {name}: {rate:,.0f} tokens a second, {figures['utilisation']:.0%} of what a large product reaches ({most / 1e12:.2f} TFLOP/s).",
        figures,
    )


# -- chat


def chat(bench: Bench) -> tuple[str, dict[str, Any]]:
    """The model server: load a model, have it answer, unload it, end; what it held must come back."""
    first, (name, changes) = device.devices()[0], bench.sizes()[-1]
    voice = f"base:{bench.model(name, **changes)}"
    handle, held = server.server(), {"before": _free(first)}
    try:
        handle.load([voice])
        held["loaded"], ram_loaded = _free(first), handle.status()["memory"]
        text, usage = "", {}
        for micro_batch in handle.stream(voice, [{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0):
            text, usage = text + micro_batch.text, micro_batch.usage or usage
        handle.unload([voice])
        time.sleep(0.5)
        held["unloaded"], ram_unloaded = _free(first), handle.status()["memory"]
    finally:
        server.end()
    time.sleep(0.5)
    held["ended"] = _free(first)
    taken = held["before"] - held["loaded"]
    figures = {
        "free": held,
        "server_loaded": ram_loaded,
        "server_unloaded": ram_unloaded,
        "tokens": usage.get("tokens"),
        "first_token_seconds": usage.get("first_token_seconds"),
        "tokens_per_second": usage.get("tokens_per_second"),
    }
    if not usage.get("tokens"):
        raise Wrong("The model server gave no answer.", figures)
    if first.traits.cards and not first.shared:
        weights = sum(file.stat().st_size for file in Path(voice.removeprefix("base:")).glob("*.safetensors"))
        back, all_back = held["unloaded"] - held["loaded"], held["ended"] - held["loaded"]
        if back < 0.8 * min(weights, taken) or all_back < 0.95 * taken:
            raise Wrong(
                f"Loading took {taken / 2**20:.0f} MiB; unloading gave {back / 2**20:.0f} MiB back, ending the server {all_back / 2**20:.0f}.",
                figures,
            )
        return (
            f"It answers ({usage['tokens']} tokens); unloading gave {back / 2**20:.0f} of {taken / 2**20:.0f} MiB back, ending the server "
            f"{all_back / 2**20:.0f}.",
            figures,
        )
    gone = max(0, ram_loaded - ram_unloaded) / 2**20
    return (
        f"It answers ({usage['tokens']} tokens); unloading gave {gone:.0f} MiB back, and its end all {ram_loaded / 2**20:.0f}.",
        figures,
    )


def _free(first: device.Device) -> int:
    return next((one.free for one in device.devices() if one.id == first.id), 0)
