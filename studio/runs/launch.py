"""How the trainer's process, or its several ones, are started: the command line, the environment, and what to type on each host.

On several hosts the first one has the run's supervisor, which holds its lock, keeps its log and writes its end; the others have
torchrun alone. STUDIO_HOSTS tells that supervisor how many hosts there are and under which name the others find this one.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from studio.config import RunConfig
from studio.device import Device, cores, devices, thread_environment
from studio.errors import StudioError
from studio.run import Run

TRAINER, COMBINER = "studio.worker.train", "studio.worker.combine"
PORT = 29500
HOSTS = "STUDIO_HOSTS"  # "2 node0:29500"


def processes(config: RunConfig, found: list[Device] | None = None) -> int:
    """Trainer processes on this host: one a device. auto: one."""
    ordered = config.training.devices
    if ordered == "auto":
        return 1
    found = devices() if found is None else found
    return min(ordered, len(found)) if found[0].traits.cards else ordered


def is_remote(run: Run) -> bool:
    """Whether the run trains on another computer and needs no device of this one. An unreadable order fails here, with words."""
    try:
        return run.config.place.remote
    except StudioError:
        return False


def device_count(run: Run) -> int:
    """How many devices of this computer the run takes; an unreadable order takes one and fails there, with words."""
    if is_remote(run):
        return 0
    try:
        ordered = run.config.training.devices
    except StudioError:
        return 1
    return ordered if isinstance(ordered, int) else 1


def command(run: Run) -> list[str]:
    """The trainer's command line: plain python, torchrun with one process a device, or what follows a run at another place."""
    if run.config.place.remote:
        return [sys.executable, "-m", "studio.follow", str(run.folder)]
    if run.config.combine:
        return [sys.executable, "-m", COMBINER, str(run.folder)]
    several = os.environ.get(HOSTS)
    count = devices_each(run.config) if several else processes(run.config)
    if count == 1 and not several:
        return [sys.executable, "-m", TRAINER, str(run.folder)]
    where = _meeting(*several.split(), rank="0") if several else ["--standalone"]
    return [sys.executable, *torchrun(count, where), str(run.folder)]


def torchrun(each: int, where: list[str]) -> list[str]:
    """torchrun as a module, no restarts: a run goes on from its checkpoint by being resumed."""
    return ["-m", "torch.distributed.run", f"--nproc-per-node={each}", "--max-restarts=0", *where, "-m", TRAINER]


def environment(config: RunConfig) -> dict[str, str]:
    """What the trainer's environment adds to ours; what the user has set himself stands.

    Waiting threads soon sleep, so that page and model server get their share of a CPU. Freed memory stays with the process: a CPU
    training takes and frees the same large blocks every step, and each fresh one would be filled with zeros page by page (pages
    of 2 MB, where the kernel gives them).
    """
    count = processes(config)
    wanted = config.training.threads
    threads = wanted if isinstance(wanted, int) else max(1, cores() // count)
    settled = {
        **thread_environment(),
        "OMP_NUM_THREADS": str(threads),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
        "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
        "MALLOC_ARENA_MAX": "2",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    if not config.training.compile:
        settled["TORCHDYNAMO_DISABLE"] = "1"  # libraries decorate functions for it at import, which loads the compiler
    return {key: value for key, value in settled.items() if key not in os.environ}


# -- several hosts


def hosts(config: RunConfig, count: int, run: str = "RUN") -> dict[str, Any]:
    """The same run on `count` hosts, training.devices on each: the command for every host, and the files for Slurm and SkyPilot.

    run: the run's folder, on a file system that all hosts share. Put the first host's name for HOST0. All are typed in the checkout.
    """
    each = devices_each(config)
    folder, head = shlex.quote(run), f"HOST0:{PORT}"
    return {
        "commands": [
            _first(str(count), head, folder),
            *(_other(str(count), each, str(rank), head, folder) for rank in range(1, count)),
        ],
        "slurm": _slurm(config, count, each),
        "skypilot": _skypilot(config, count, each),
    }


def devices_each(config: RunConfig) -> int:
    """Devices of every host, as ordered; auto: one."""
    return 1 if config.training.devices == "auto" else config.training.devices


def _meeting(count: str, head: str, rank: str) -> list[str]:
    """torchrun's words for where the processes of all hosts meet; head: name:port."""
    name, _, port = head.rpartition(":")
    return [f"--nnodes={count}", f"--node-rank={rank}", f"--master-addr={name}", f"--master-port={port}"]


def _first(count: str, head: str, run: str) -> str:
    return f'{HOSTS}="{count} {head}" python -m studio.supervise {run}'


def _other(count: str, each: int, rank: str, head: str, run: str) -> str:
    return " ".join(["python", *torchrun(each, _meeting(count, head, rank)), run])


def _either(count: str, each: int, rank: str, head: str) -> str:
    """One shell line for all hosts, which does what its host's rank asks for."""
    run = '"$RUN"'
    return f'if [ "{rank}" = 0 ]; then {_first(count, head, run)}; else {_other(count, each, rank, head, run)}; fi'


def _name(config: RunConfig) -> str:
    return config.name or f"{config.method.name}-studio"


def _slurm(config: RunConfig, count: int, each: int) -> str:
    """sbatch FILE RUN-FOLDER, from the checkout, on a file system that all nodes share."""
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name={_name(config)}",
            f"#SBATCH --nodes={count}",
            "#SBATCH --ntasks-per-node=1",
            f"#SBATCH --gpus-per-node={each}",
            "#SBATCH --output=%x-%j.log",
            "",
            'export RUN="$1"',
            'export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            f"srun bash -c '{_either(str(count), each, '$SLURM_NODEID', f'$HEAD:{PORT}')}'",
            "",
        ]
    )


def _skypilot(config: RunConfig, count: int, each: int) -> str:
    """sky launch FILE --env RUN=…; the run's folder and its model lie under a mounted home."""
    lines = [
        'HEAD=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)',
        _either(str(count), each, "$SKYPILOT_NODE_RANK", f"$HEAD:{PORT}"),
    ]
    return "\n".join(
        [
            f"name: {_name(config)}",
            f"num_nodes: {count}",
            "resources:",
            f"  accelerators: H100:{each}",
            "workdir: .",
            "envs:",
            "  RUN: ''",
            "setup: |",
            "  pip install -r requirements.txt",
            "run: |",
            *(f"  {line}" for line in lines),
            "",
        ]
    )
