"""One run on two processes: the losses of one, a killed rank told as what it is, resume."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from studio import launch
from studio.diagnosis import diagnose
from studio.home import PROJECT
from studio.run import Run
from tests.worker.carrying import carry, evals, order, result, rows, steps

FIXED = ("method.dropout=0", "training.learning_rate=0.001", "training.save_every=4", "training.epochs=2")


def start(run: Run, attempt: int = 1) -> subprocess.Popen:
    environment = {**os.environ, **launch.environment(run.config), "OMP_NUM_THREADS": "1", "STUDIO_ATTEMPT": str(attempt), "CUDA_VISIBLE_DEVICES": ""}
    with open(run.log, "ab") as log:
        return subprocess.Popen(launch.command(run), cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT)


@pytest.mark.parametrize(("method", "sharding"), [("lora", "ddp")])
def test_two_processes_learn_what_one_learns(method: str, sharding: str, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = rows(tmp_path / "rows.json", 23)
    fixed = (f"method.name={method}", *(FIXED if method == "lora" else FIXED[1:]))
    one = order(tiny_model, data, *fixed)
    alone = carry(one)
    run = order(tiny_model, data, *fixed, "training.devices=2", f"training.sharding={sharding}")
    assert start(run).wait(timeout=180) == 0, run.log.read_text()[-2000:]
    both = run.events()
    assert both[-1]["state"] == "finished"
    assert steps(both) == pytest.approx(steps(alone), abs=1e-3)
    assert evals(both) == pytest.approx(evals(alone), abs=1e-3)
    mine, theirs = result(run), result(one)
    assert mine.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(mine[name], weight, atol=2e-3, rtol=1e-2)
    assert len(next(event for event in both if event["kind"] == "step")["memories"]) == 2

    shutil.rmtree(run.result)  # and a resume from the middle ends the same
    shutil.rmtree(run.checkpoints / "checkpoint-8")
    shutil.rmtree(run.checkpoints / "checkpoint-10")
    assert start(run, 2).wait(timeout=180) == 0, run.log.read_text()[-2000:]
    again = run.events()[len(both):]
    assert steps(again) == pytest.approx(steps(both)[4:], abs=1e-6)
    assert (run.result / "manifest.json").exists()


def test_a_killed_process_is_told_as_what_it_is(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    run = order(tiny_model, rows(tmp_path / "rows.json"), *FIXED, "training.devices=2", "training.epochs=500")
    parent = start(run)
    until = time.monotonic() + 120
    while not steps(run.events()) and time.monotonic() < until and parent.poll() is None:
        time.sleep(0.2)
    ranks = [child for child in psutil.Process(parent.pid).children(recursive=True) if child.environ().get("RANK") == "1"]
    ranks[0].send_signal(signal.SIGKILL)
    code = parent.wait(timeout=90)
    assert code != 0
    told = diagnose(code, run.log)
    assert told.kind == "killed", told
    assert sys.platform != "linux" or not [child for child in psutil.process_iter() if child.ppid() == parent.pid]
