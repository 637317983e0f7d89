"""One run on several processes: the losses of one, a sharded model, a killed process and its cause, resume, hosts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from torch.distributed import fsdp
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from studio import config, model, process, queue
from studio.device import devices
from studio.errors import RunError
from studio.home import PROJECT
from studio.methods import METHODS
from studio.resolve import resolve
from studio.run import Run, create, summary
from studio.runs import goal, sequence
from studio.worker import base_model, distributed, sharding
from tests.browser import free_port
from tests.conftest import terminal
from tests.worker.carrying import carry, evals, order, result, rows, steps
from tests.worker.ranks import train_in_ranks
from tests.worker.test_preference import COMPARING

FIXED = ("training.learning_rate=0.001", "training.save_every=4", "training.schedule=constant", "training.max_steps=10")
WITHOUT_DROPOUT = ("method.dropout=0", *FIXED)


def until(true: Callable[[], Any], what: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"no sign of {what}"
        time.sleep(0.1)


def held(events: list[dict[str, Any]]) -> list[float]:
    """Each process's share of the model's bytes."""
    told = next(event for event in events if "held" in event)
    return [size / told["whole"] for size in told["held"]]


def same_result(mine: Run, theirs: Run) -> None:
    found, wanted = result(mine), result(theirs)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, atol=2e-3, rtol=1e-2)


def ranks(run: Run) -> list[psutil.Process]:
    """The trainer's processes, by their rank."""
    found = [
        one
        for one in psutil.process_iter(["environ", "cmdline"])
        if str(run.folder) in (one.info["cmdline"] or []) and "RANK" in (one.info["environ"] or {})
    ]
    return sorted(found, key=lambda one: one.info["environ"]["RANK"])


def test_a_split_model_under_its_supervisor(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """FSDP over two processes: one is killed, the resumed run ends as one process does; then the supervisor dies."""
    data = rows(tmp_path / "rows.json", 23)
    alone = order(tiny_model, data, "method.name=full", *FIXED)
    expected = carry(alone)
    run = order(
        tiny_model,
        data,
        "method.name=full",
        *FIXED,
        "training.max_steps=100000",
        "training.devices=2",
        "training.sharding=fsdp",
    )
    queue.advance()
    until(lambda: len(steps(run.events())) > 4, "five steps")
    assert len(ranks(run)) == 2
    ranks(run)[1].send_signal(signal.SIGKILL)
    until(lambda: not run.alive(), "the end")
    told = summary(run)
    assert told["state"] == "failed"
    assert "Process 1 of the trainer was killed (SIGKILL)" in told["cause"]
    assert not ranks(run)
    assert held(run.events()) == pytest.approx([0.5, 0.5], abs=0.02)
    shown = json.loads(terminal(["show", run.id, "--json"], home).stdout)
    assert len(shown["memories"]) == 2
    assert all(size > 1e8 for size in shown["memories"])

    for checkpoint in sorted(run.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))[1:]:
        checkpoint.rename(checkpoint.with_name(f".{checkpoint.name}"))
    queue.resume(run, {"training": {"max_steps": 10}})
    until(lambda: not run.alive() and run.state() == "finished", "the end")
    again = [event for event in run.events() if event.get("attempt") == 2]
    assert [event["step"] for event in again if event["kind"] == "step"] == [5, 6, 7, 8, 9, 10]
    assert steps(again) == pytest.approx(steps(expected)[4:], abs=1e-3)
    norms = [[event["grad_norm"] for event in events if event["kind"] == "step"] for events in (again, expected)]
    assert norms[0] == pytest.approx(norms[1][4:], rel=1e-3)
    assert evals(again)[-1] == pytest.approx(evals(expected)[-1], abs=1e-3)
    same_result(run, alone)

    goal.extend(run, 100_000)
    until(
        lambda: [event for event in run.events() if event["kind"] == "step" and event["attempt"] == 3],
        "a step of the third attempt",
    )
    left = ranks(run)
    assert len(left) == 2
    process.holders(run.lock)[0].kill()
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive, "no process outlives the supervisor"
    assert queue.reconcile(run) == "lost"


@pytest.mark.parametrize(
    "stage", [pytest.param(name, marks=() if name == "kto" else pytest.mark.rare) for name in COMPARING]
)
def test_answers_are_compared_over_two_processes(stage: str, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Copies of the model with an odd number of rows in a step: losses, metrics and divergence of one process."""
    from tests.worker.test_preference import order as compared

    method = {"name": "lora", "dropout": 0}
    fixed = {"batch_size": 5, "accumulation": 1, "max_steps": 4, "precision": "fp32"}
    alone, both = (
        create(compared(stage, method, tiny_model, tmp_path, **fixed, devices=devices)) for devices in ("auto", 2)
    )
    expected = carry(alone)
    train_in_ranks(both)
    found = both.events()
    assert steps(found) == pytest.approx(steps(expected), abs=1e-3)
    assert evals(found) == pytest.approx(evals(expected), abs=1e-3)
    for kind in ("step", "eval"):
        for mine, theirs in zip(
            *([event["preference"] for event in told if event["kind"] == kind] for told in (found, expected)),
            strict=True,
        ):
            assert mine == pytest.approx(theirs, abs=2e-3)
    same_result(both, alone)


def test_a_base_in_4_bits_is_split_too(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    data, fixed = rows(tmp_path / "rows.json", 23), ("method.name=qlora", *WITHOUT_DROPOUT)
    one = order(tiny_model, data, *fixed)
    alone = carry(one)
    run = order(tiny_model, data, *fixed, "training.devices=2", "training.sharding=fsdp")
    train_in_ranks(run)
    both = run.events()
    assert held(both) == pytest.approx([0.5, 0.5], abs=0.05)
    assert steps(both) == pytest.approx(steps(alone), abs=1e-3)
    assert evals(both) == pytest.approx(evals(alone), abs=1e-3)
    same_result(run, one)


@pytest.mark.skipif(sys.platform != "linux", reason="both hosts are this computer")
def test_two_hosts_type_what_they_are_told(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two commands, both typed here: a copy of the model on each, the losses of one process."""
    data = rows(tmp_path / "rows.json", 23)
    alone = order(tiny_model, data, *WITHOUT_DROPOUT)
    expected = carry(alone)
    file = tmp_path / "order.yaml"
    file.write_text(alone.config.to_yaml())
    told = json.loads(terminal(["hosts", str(file), "--count", "2", "--each", "1", "--json"], home).stdout)
    run = Run(Path(told["folder"]))
    assert run.state() == "queued"
    assert queue.on_hold(run)
    known = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    port = str(free_port())
    hosts = [
        subprocess.Popen(
            ["bash", "-c", line],
            cwd=PROJECT,
            env=known,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for line in (command.replace("HOST0", "127.0.0.1").replace("29500", port) for command in told["commands"])
    ]
    try:
        assert [host.wait(timeout=400) for host in hosts] == [0, 0], run.log.read_text()[-2000:]
    finally:
        for host in hosts:
            host.kill()
    both = run.events()
    assert run.state() == "finished"
    assert held(both) == [1.0, 1.0]
    assert steps(both) == pytest.approx(steps(expected), abs=1e-3)
    same_result(run, alone)


def test_other_devices_are_another_order(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """What a resume may not change: devices, layout, the rows of a step."""
    plain = config.parse(
        f"{{model: {tiny_model}, data: {{train: x.json}}, training: {{batch_size: 2, accumulation: 2}}}}"
    )
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_text('{"files": {}}')
    (tmp_path / sequence.FILE).write_text(json.dumps(sequence.sequence(plain)))
    sequence.refuse_other_order(
        tmp_path,
        plain.with_changes(
            training={"batch_size": 1, "accumulation": 4, "workers": 2, "precision": "bf16", "sharding": "ddp"}
        ),
    )
    for changed in (
        {"devices": 2},
        {"packing": False},
        {"accumulation": 8},
        {"weights": "bf16"},
        {"optimizer": "adafactor"},
        {"sharding": "fsdp"},
    ):
        with pytest.raises(RunError, match=next(iter(changed))):
            sequence.refuse_other_order(tmp_path, plain.with_changes(training=changed))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_will_be_split_waits_in_its_file(
    method: str, home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of a host map the same files, and copy nothing: weights are cast when they are sharded, by layers."""
    order = config.parse(
        f"{{model: {tiny_model}, data: {{train: x.json}}, method: {{name: {method}}}, "
        "training: {precision: bf16, devices: 2, sharding: fsdp}}"
    )
    resolved = resolve(
        order, model.facts(tiny_model), devices()[0], {"rows": 9, "tokens": 99, "trained": 99, "max": 11}
    )
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    _, tuned = base_model.load_and_wrap(order, resolved, tiny_model)
    mapped = [
        line.split()[0].split("-")
        for line in Path("/proc/self/maps").read_text().splitlines()
        if str(tiny_model) in line
    ]
    names = {name for name, weight in tuned.named_parameters() if ".lora_" not in name}
    for name, weight in tuned.named_parameters():
        in_file = any(int(start, 16) <= weight.data_ptr() < int(end, 16) for start, end in mapped)
        assert in_file == (name in names), f"{name} was copied"
    before = {name: weight.detach().clone() for name, weight in tuned.named_parameters()}

    whole: list[int] = []  # bytes that are cast and not split yet, at each call
    fully_shard = fsdp.fully_shard

    def counted(module: torch.nn.Module, **options: Any) -> Any:
        whole.append(
            sum(
                weight.nbytes
                for name, weight in tuned.named_parameters()
                if not hasattr(weight, "to_local") and weight.dtype != before[name].dtype
            )
        )
        return fully_shard(module, **options)

    monkeypatch.setattr(fsdp, "fully_shard", counted)
    monkeypatch.setattr(distributed, "world_size", lambda: 1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sharding.shard_model(tuned, torch.device("cpu"), torch.bfloat16)
        for name, weight in tuned.named_parameters():
            expected = before[name] if weight.requires_grad else before[name].to(torch.bfloat16)
            torch.testing.assert_close(weight.to_local().detach(), expected, rtol=0, atol=0)
    finally:
        dist.destroy_process_group()
    assert tuned.config.dtype == torch.bfloat16
    layer = 2 * sum(weight.numel() for name, weight in before.items() if ".layers.0." in name and name in names)
    outside = 2 * sum(weight.numel() for name, weight in before.items() if ".layers." not in name)
    assert whole == ([0] * 3 if method == "full" else [layer, layer, outside])


def test_gradients_of_an_adapter_are_summed_at_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DDP's own buckets hold 25 MiB, the first one less: here 1 KiB, so that a tiny adapter shows it."""
    tuned = METHODS["lora"](rank=64).wrap(METHODS["lora"]().load(tiny_model, torch.float32))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    backends = {kind: sharding.distributed_arguments(tuned, kind)["ddp_backend"] for kind in ("cpu", "cuda", "xpu")}
    assert backends == {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl"}
    capacity = sharding.distributed_arguments(tuned, "cpu")["ddp_bucket_cap_mb"]
    monkeypatch.setattr(dist, "_DEFAULT_FIRST_BUCKET_BYTES", 1024)
    ids = torch.arange(8)[None]

    def summed(sums, bucket):  # annotations as text are refused
        sums.append(bucket.index())
        return allreduce_hook(dist.group.WORLD, bucket)

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        counts = []
        for chosen in (None, capacity):
            wrapped = DistributedDataParallel(tuned, bucket_cap_mb=chosen)
            sums: list[int] = []
            wrapped.register_comm_hook(sums, summed)
            for _ in range(2):  # the buckets are made anew after the first backward
                sums.clear()
                wrapped(input_ids=ids, labels=ids).loss.backward()
            counts.append(len(sums))
    finally:
        dist.destroy_process_group()
    assert counts[0] > 1
    assert counts[1] == 1
