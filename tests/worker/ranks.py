"""Trainers of their own, forked where everything is imported already: a new interpreter would import torch for each."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from studio.run import Run
from studio.runs import launch
from tests.browser import free_port

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["studio.worker.train"])


def begin(run: Run, **variables: str) -> BaseProcess:
    """The run's trainer, with its output in the run's log."""
    given = {**launch.environment(run.config), "STUDIO_HOME": os.environ["STUDIO_HOME"], "CUDA_VISIBLE_DEVICES": ""}
    trainer = FORKS.Process(target=_train, args=(str(run.folder), {**given, **variables}))
    trainer.start()
    return trainer


def train_in_ranks(run: Run, count: int = 2) -> None:
    """Train on `count` processes, with the variables that torchrun sets. Raises AssertionError where one fails."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    ranks = [begin(run, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(count)]
    for rank in ranks:
        rank.join(240)
    codes = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
    assert codes == [0] * count, run.log.read_text()[-2000:]


def _train(folder: str, variables: dict[str, str]) -> None:
    os.environ.update(variables)
    run = Run(Path(folder))
    with open(run.log, "ab") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    from studio.worker import train

    sys.exit(train.main(run))
