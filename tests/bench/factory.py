"""LLaMA-Factory as the peer of `bench train`: an environment of its own, the same order in its words, and what its
trainer log says.

It is given our rows, tokenized and in the order our run meets them, through its `tokenized_path`; everything else is
its default.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from studio.config import RunConfig
from studio.device import Device, default_environment, devices
from studio.errors import StudioError
from studio.home import PROJECT, subfolder

PACKAGE = "llamafactory==0.9.5"
LOG = "trainer_log.jsonl"
LOOK = 0.02  # seconds between two looks at its log


def environment() -> Path:
    """The folder of its environment, made at the first call: some minutes, some gigabytes. Raises StudioError with
    pip's reason.
    """
    place = subfolder("peers") / PACKAGE.replace("==", "-")
    if (place / "ready").is_file():
        return place
    print(f"making an environment for {PACKAGE} in {place}", file=sys.stderr, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    limits = place / "limits.txt"
    _do([sys.executable, "-m", "venv", str(place)])
    limits.write_text(f"torch=={version('torch')}\n")  # ours: both sides compute with the same one
    _do([str(place / "bin" / "python"), "-m", "pip", "install", "--constraint", str(limits), PACKAGE])
    _without_what_does_not_load(place / "bin" / "python")
    _do([str(place / "bin" / "llamafactory-cli"), "version"])
    (place / "ready").touch()
    return place


def _without_what_does_not_load(python: Path) -> None:
    """Pictures and sound have wheels for CUDA only, which do not load beside a torch for CPUs; text needs neither, but
    torchaudio is asked for by name.
    """
    for package in ("torchvision", "torchaudio"):
        if (
            subprocess.run(
                [str(python), "-c", f"import {package}"], stdin=subprocess.DEVNULL, capture_output=True
            ).returncode
            == 0
        ):
            continue
        print(
            f"{package} does not load beside this torch: it is taken out, text needs none of it",
            file=sys.stderr,
            flush=True,
        )
        _do([str(python), "-m", "pip", "uninstall", "--yes", package])
        if package == "torchaudio":
            place = subprocess.run(
                [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                capture_output=True,
                text=True,
                check=True,
            )
            Path(place.stdout.strip(), "torchaudio.py").write_text(
                '"""Stands in for a torchaudio that does not load here."""\n'
            )


def _do(words: list[str]) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).strip().splitlines() if line.strip()]
        reason = next((line for line in said if line.startswith("ERROR")), said[-1] if said else "it said nothing")
        raise StudioError(
            f"{PACKAGE} cannot be installed here: {reason.removeprefix('ERROR: ')[:400]}",
            "Measure against TRL with --peer trl, or on a computer where it can.",
            "peer",
        )


def order(config: RunConfig, base: Path, rows: Path, out: Path, device: Device) -> dict[str, Any]:
    """Our order in its words; what is not named here is its default (gradient checkpointing on, padded batches)."""
    training, method = config.training, config.method
    named = {
        "model_name_or_path": str(base),
        "stage": "sft",
        "do_train": True,
        "dataset": "rows",
        "tokenized_path": str(rows),
        "template": "default",
        "cutoff_len": config.data.max_length,
        "disable_shuffling": True,
        "output_dir": str(out),
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": training.schedule,
        "warmup_ratio": training.warmup,
        "max_steps": training.max_steps,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": device.kind == "cpu",
        "bf16": device.bf16,
        "finetuning_type": "lora" if method.adapter else "full",
    }
    if method.adapter:
        named |= {
            "lora_rank": method.rank,
            "lora_alpha": int(method.effective_alpha),
            "lora_dropout": method.dropout,
            "lora_target": "all",
        }
    return named | ({"quantization_bit": 4} if method.quantized() else {})


def measure(run: Path, config: RunConfig, base: Path, folder: Path) -> dict[str, Any]:
    """Train once in its environment: {points, peak_memory, train_loss, loss}, as peer.py tells it of TRL. folder: to
    work in.
    """
    place, device = environment(), devices()[0]
    _ours("prepare", run, folder)
    lengths = json.loads((folder / "lengths.json").read_text())
    (folder / "order.yaml").write_text(yaml.safe_dump(order(config, base, folder / "rows", folder / "out", device)))
    settled = {
        "OMP_NUM_THREADS": str(device.cores or 1),
        "HF_HUB_OFFLINE": "1",
        "RECORD_VRAM": "1",
        **default_environment(),
        "PYTORCH_CUDA_ALLOC_CONF": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
    }
    began = time.monotonic()
    with open(folder / "said.txt", "wb") as said:
        process = subprocess.Popen(
            [str(place / "bin" / "llamafactory-cli"), "train", str(folder / "order.yaml")],
            cwd=folder,
            env={**os.environ, **settled},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        moments, peak = _watch(process, folder / "out" / LOG)
    if process.returncode or not moments:
        last = (folder / "said.txt").read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise StudioError(
            f"LLaMA-Factory failed: {last[-1][:400]}",
            f"Its order was {order(config, base, folder, folder, device)}.",
            "peer",
        )
    _ours("judge", run, folder)
    return {
        "began": began,
        **told(moments, lengths, config.training.effective_batch(len(lengths)), peak),
        "loss": json.loads((folder / "loss.json").read_text()),
    }


def _watch(process: subprocess.Popen[bytes], log: Path) -> tuple[list[tuple[float, dict[str, Any]]], int]:
    """(moment and entry of each line of its log, when it appeared; peak bytes of RAM). Ends with the process."""
    moments: list[tuple[float, dict[str, Any]]] = []
    ended = 0
    while True:
        if not ended:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        lines = log.read_text().splitlines() if log.is_file() else []
        moments += [(time.monotonic(), json.loads(line)) for line in lines[len(moments) :]]
        if ended:
            process.returncode = os.waitstatus_to_exitcode(status)
            return moments, usage.ru_maxrss * 1024
        time.sleep(LOOK)


def told(moments: list[tuple[float, dict[str, Any]]], lengths: list[int], effective: int, peak: int) -> dict[str, Any]:
    """What its log says: (moment, tokens so far) of each step, mean loss; peak memory of the GPU where it tells of
    one.
    """
    steps = [(at, entry) for at, entry in moments if "loss" in entry]
    reserved = max((entry.get("vram_reserved", 0) for _, entry in moments), default=0)
    return {
        "points": [(at, sum(lengths[: entry["current_steps"] * effective])) for at, entry in steps],
        "train_loss": round(sum(entry["loss"] for _, entry in steps) / len(steps), 4),
        "peak_memory": int(reserved * 2**30) or peak,
    }


def _ours(what: str, run: Path, folder: Path) -> None:
    """The part that needs our libraries: rows before, the held-out loss after."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.factory_trainer", what, str(run), str(folder)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StudioError(
            f"{what} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}",
            "Read its output above.",
            "peer",
        )
