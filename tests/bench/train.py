"""bench train: our training against TRL's, side by side, on the same model, rows, effective batch, steps and seed.

Every measurement is a process of its own; ours is the trainer as a run starts it. Sides take turns within a round, so
that a busy computer slows all of them; ratios are formed round by round. Losses are compared on the same held-out rows,
by the same function.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from studio import config, data, model, preflight, run
from studio.base import source
from studio.config import RunConfig
from studio.device import Device, default_environment, devices, environment
from studio.errors import DeviceError, OrderError, StudioError
from studio.forecast import utilisation
from studio.home import PROJECT, home
from studio.runs import launch
from studio.tokens import Encoder
from tests.bench import factory
from tests.bench.isolated_home import isolated_home

SIDES = {
    "studio": "ours, every setting on auto",
    "trl": "TRL's SFTTrainer with its defaults (float32 weights, bf16 autocast, checkpointing, random order)",
    "trl-best": "TRL's SFTTrainer at its best settings (bf16 base under LoRA, no checkpointing, length grouping; on "
    "a GPU Liger, and flash without padding)",
    "trl-float32": "TRL's SFTTrainer in float32 alone (no autocast, no checkpointing, length grouping)",
    "llamafactory": "LLaMA-Factory with its defaults, in an environment of its own",
}
Samples = Sequence[tuple[float, float]]  # (moment, what was counted up to it)
PEERS = {"trl": ("trl", "trl-best"), "trl-float32": ("trl-float32",), "llamafactory": ("llamafactory",), "none": ()}


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `bench train`."""
    parser.add_argument(
        "--peer",
        choices=list(PEERS),
        default="trl",
        help="whom to compare with; llamafactory is installed at the first call",
    )
    parser.add_argument("--model", default="starter")
    parser.add_argument("--data", default="sample", help="what to train on, as data.train")
    parser.add_argument("--method", default="lora", choices=("lora", "full", "qlora"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512, help="tokens of the longest row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="change our order"
    )
    parser.add_argument(
        "--utilisation",
        action="store_true",
        help="also the share of what a large matrix product reaches here; on a GPU always",
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.set_defaults(run=measure, show=show)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a side: medians over the rounds, and the ratio of speeds and memory to ours, by pairs."""
    chosen = order(args)
    sides = ["studio", *PEERS[args.peer]]
    if args.peer == "llamafactory":
        factory.environment()
    if args.peer.startswith("trl") and find_spec("trl") is None:
        raise StudioError(
            "TRL is not installed: only this comparison needs it.", "pip install trl, or give --peer none.", "peer"
        )
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(args.rounds):
        for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
            print(f"round {number + 1} of {args.rounds}: {SIDES[side]}", file=sys.stderr, flush=True)
            found[side].append(one(side, chosen))
            print(f"  {json.dumps(found[side][-1])}", file=sys.stderr, flush=True)
        table = [_row(side, found) for side in sides]
        _save(args, {"rows": table, "rounds": found})  # a round takes minutes: none is lost
    if args.utilisation or devices()[0].traits.cards:
        _save(args, used(chosen, table) | {"rows": table, "rounds": found})
    return table


def _save(args: argparse.Namespace, told: dict[str, Any]) -> None:
    if args.save:
        args.save.write_text(json.dumps(about(args) | told, indent=1))


def used(chosen: RunConfig, table: list[dict[str, Any]]) -> dict[str, float]:
    """Adds to each row its share of the measured ceiling; returns {flops_per_token, ceiling}."""
    folder = source.fetch(chosen.model)
    encoder = Encoder.from_order(chosen.data, folder)
    lengths = data.prepare(chosen.data, encoder, chosen.training.seed).train.lengths().tolist()
    each = utilisation.flops_per_token(model.facts(folder), not chosen.method.adapter, lengths)
    most = ceiling(devices()[0])
    for row in table:
        row["utilisation"] = round(row["tokens_per_second"] * each / most, 4)
    return {"flops_per_token": each, "ceiling": most}


def ceiling(device: Device) -> float:
    """FLOP/s of a large 16-bit matrix product (float32 on a CPU without bf16), measured in a process of its own. Raises
    DeviceError.
    """
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[device.precision]
    words = ["studio.worker.matmul_flops", device.traits.torch, dtype]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=PROJECT,
        env={**os.environ, **environment([device])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DeviceError(
            f"{device.name} could not be timed: {(done.stderr.strip().splitlines() or ['no reason'])[-1][:200]}",
            "Leave utilisation out.",
            "device",
        )
    return float(done.stdout.strip().splitlines()[-1])


def order(args: argparse.Namespace) -> RunConfig:
    """Our order: all on auto but what both sides must share. It neither evaluates nor saves while it is timed."""
    usual = [
        f"training.max_steps={args.steps}",
        f"training.batch_size={args.batch}",
        f"training.accumulation={args.accumulation}",
        f"data.max_length={args.max_length}",
        "data.eval=0.01",
        "training.eval_every=1000000",
        "training.save_every=1000000",
    ]
    plain = json.dumps({"model": args.model, "data": {"train": args.data}, "method": {"name": args.method}})
    chosen = config.parse(plain, [*usual, *args.settings], where="bench train")
    preflight.check(chosen)
    if launch.processes(chosen) > 1:
        raise OrderError("bench train compares on one device.", "Leave training.devices on auto.", "training.devices")
    return chosen


def one(side: str, chosen: RunConfig) -> dict[str, Any]:
    """One side once, in a process of its own: {tokens_per_second, tokens_per_cpu_second, first_step, peak_memory, loss,
    train_loss, steps}. Seconds and bytes.
    """
    with isolated_home(), tempfile.TemporaryDirectory() as folder:
        began, told = time.monotonic(), Path(folder, "told.json")
        room = run.create(chosen.with_changes(name=f"bench {side}"))
        if side == "llamafactory":
            try:
                return _spoken(factory.measure(room.folder, chosen, source.fetch(chosen.model), Path(folder)))
            finally:
                run.delete(room)
        words = (
            launch.command(room)
            if side == "studio"
            else [sys.executable, "-m", "tests.bench.peer", side, str(room.folder), str(told)]
        )
        wanted = surroundings(side, chosen)
        with open(Path(folder, "errors.txt"), "w+") as errors:
            process = subprocess.Popen(
                words,
                cwd=PROJECT,
                env={**os.environ, **wanted, "STUDIO_HOME": str(home())},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            used = processor_seconds(process)
            errors.seek(0)
            lines = errors.read().strip().splitlines()
        try:
            if process.returncode:
                raise StudioError(
                    f"The side {side} failed: {(lines or ['it said nothing'])[-1]}", "Read its output above.", side
                )
            if side == "studio":
                return _ours(room, began, used)
            return _spoken({"began": began, **json.loads(told.read_text())}, used)
        finally:
            run.delete(room)


def processor_seconds(process: subprocess.Popen) -> Samples:
    """Wait for a process; (moment, seconds that it and its children have worked so far), several times a second."""
    watched, samples = psutil.Process(process.pid), [(time.monotonic(), 0.0)]
    while process.poll() is None:
        seconds = 0.0
        with contextlib.suppress(psutil.Error):
            for member in (watched, *watched.children(recursive=True)):
                times = member.cpu_times()
                seconds += times.user + times.system
        samples.append((time.monotonic(), max(seconds, samples[-1][1])))
        time.sleep(0.1)
    return samples


def _per_cpu_second(points: Samples, used: Samples) -> float:
    """Tokens per second of processor time, from the end of the first step on; without samples, 0."""
    if not used:
        return 0.0
    start, end = (float(np.interp(moment, *zip(*used))) for moment in (points[0][0], points[-1][0]))
    return round((points[-1][1] - points[0][1]) / max(end - start, 1e-9), 1)


def surroundings(side: str, chosen: RunConfig) -> dict[str, str]:
    """What a side's environment adds to ours. Every side sees one and the same card: with several, the Trainer of a
    peer would divide its batch over all of them (nn.DataParallel). And every side has the allocator that suits rows of
    unlike length.
    """
    same = {
        **default_environment(),
        "PYTORCH_CUDA_ALLOC_CONF": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
    }
    return same | (launch.environment(chosen) if side == "studio" else {"OMP_NUM_THREADS": str(_threads(chosen))})


def _threads(chosen: RunConfig) -> int:
    ordered = chosen.training.threads
    return ordered if isinstance(ordered, int) else devices()[0].cores or 1


def _speed(points: Samples) -> float:
    """Tokens per second from the end of the first step on: (moment, tokens so far) at the end of each step."""
    (start, before), (end, after) = points[0], points[-1]
    return round((after - before) / max(end - start, 1e-9), 1)


def _ours(room: run.Run, began: float, used: Samples) -> dict[str, Any]:
    steps = [event for event in room.events() if event["kind"] == "step"]
    evals = [event["loss"] for event in room.events() if event["kind"] == "eval"]
    points = [(step["monotonic"], step["tokens"]) for step in steps]
    return {
        "tokens_per_second": _speed(points),
        "tokens_per_cpu_second": _per_cpu_second(points, used),
        "first_step": round(points[0][0] - began, 1),
        "peak_memory": max(step["memory"] for step in steps),
        "loss": evals[-1],
        "train_loss": round(statistics.mean(step["loss"] for step in steps), 4),
        "steps": len(steps),
    }


def _spoken(said: dict[str, Any], used: Samples = ()) -> dict[str, Any]:
    """What a peer said of itself, under our names."""
    return {
        "tokens_per_second": _speed(said["points"]),
        "tokens_per_cpu_second": _per_cpu_second(said["points"], used),
        "first_step": round(said["points"][0][0] - said["began"], 1),
        "peak_memory": said["peak_memory"],
        "loss": said["loss"],
        "train_loss": said["train_loss"],
        "steps": len(said["points"]),
    }


def _row(side: str, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    mine, theirs = found["studio"], found[side]
    row = {
        key: statistics.median(entry[key] for entry in theirs)
        for key in ("tokens_per_second", "tokens_per_cpu_second", "first_step", "peak_memory", "loss", "train_loss")
    }
    ratios = [our["tokens_per_second"] / their["tokens_per_second"] for our, their in zip(mine, theirs)]
    work = [
        our["tokens_per_cpu_second"] / (their["tokens_per_cpu_second"] or math.inf) for our, their in zip(mine, theirs)
    ]
    memory = [our["peak_memory"] / their["peak_memory"] for our, their in zip(mine, theirs)]
    return {
        "side": side,
        "what": SIDES[side],
        **row,
        "ours_is_faster": [round(ratio, 2) for ratio in ratios],
        "times": round(statistics.median(ratios), 2),
        "times_by_cpu": round(statistics.median(work), 2),
        "memory_ratio": round(statistics.median(memory), 2),
    }


def about(args: argparse.Namespace) -> dict[str, Any]:
    """What was measured, for the file."""
    from importlib.metadata import version

    device = devices()[0]
    return {
        "device": f"{device.cores} cores" if device.kind == "cpu" else device.name,
        "method": args.method,
        "model": args.model,
        "data": Path(args.data).name,
        "steps": args.steps,
        "effective_batch": args.batch * args.accumulation,
        "max_length": args.max_length,
        "settings": args.settings,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl") if find_spec(name)},
    }


def show(table: list[dict[str, Any]]) -> None:
    """For people."""
    last = f" {'utilisation':>11}" if "utilisation" in table[0] else ""
    print(
        f"{'':12} {'tokens/s':>9} {'first step':>11} {'peak':>8} {'held-out loss':>14} {'ours is':>9} "
        f"{'our memory':>11}{last}"
    )
    for row in table:
        share = f" {100 * row['utilisation']:9.1f} %" if last else ""
        print(
            f"{row['side']:12} {row['tokens_per_second']:9.0f} {row['first_step']:9.1f} s "
            f"{row['peak_memory'] / 1e9:5.2f} GB {row['loss']:14.4f} "
            f"{row['times']:8.2f}× {row['memory_ratio']:10.2f}×{share}"
        )
