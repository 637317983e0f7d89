"""How the trainer's processes are started: command line, environment, and the commands for several hosts.

Of several hosts the first one runs the run's supervisor, which holds its lock and writes its log and end event;
the others run torchrun only. STUDIO_HOSTS tells the supervisor the number of hosts and the name by which the
others reach this one.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from studio import credentials
from studio.config import RunConfig
from studio.data import hub as data_hub
from studio.device import Device, cores, devices, thread_environment
from studio.errors import StudioError
from studio.evaluation import endpoint
from studio.memory.studio_loop import base_itemsize
from studio.run import Run

TRAINER, COMBINER = "studio.worker.train", "studio.worker.combine"
RACER, PLANNER = "studio.worker.race", "studio.worker.plan"
PORT = 29500
HOSTS = "STUDIO_HOSTS"  # "2 node0:29500"
MERGE_AT_ONCE = ("glibc.malloc.mxfast=0", "glibc.malloc.tcache_count=0")  # free blocks, with their neighbours
OWN_PAGES = 2**23  # bytes of a block from which on it is mapped by itself, where products take far longer than that


def processes(config: RunConfig, available: list[Device] | None = None) -> int:
    """Number of trainer processes on this host: one per device. auto: one."""
    ordered = config.training.device_count
    if ordered == 1:
        return 1
    available = devices() if available is None else available
    return min(ordered, len(available)) if available[0].traits.cards else ordered


def is_remote(run: Run) -> bool:
    """Whether the run trains on another computer; False for an unreadable order, which fails here with a message."""
    try:
        return run.config.place.remote
    except StudioError:
        return False


def device_count(run: Run) -> int:
    """How many devices of this computer the run uses; 1 for an unreadable order, which then fails with a message."""
    if is_remote(run):
        return 0
    try:
        return run.config.training.device_count
    except StudioError:
        return 1


def command(run: Run) -> list[str]:
    """The trainer's command line: python, torchrun with a process per device, or studio.follow for another place."""
    if run.config.place.remote:
        return [sys.executable, "-m", "studio.follow", str(run.folder)]
    if run.config.combine:
        return [sys.executable, "-m", COMBINER, str(run.folder)]
    if run.config.race:
        return [sys.executable, "-m", PLANNER if run.config.race.plan else RACER, str(run.folder)]
    hosts = os.environ.get(HOSTS)
    count = run.config.training.device_count if hosts else processes(run.config)
    if count == 1 and not hosts:
        return [sys.executable, "-m", TRAINER, str(run.folder)]
    rendezvous = _rendezvous(*hosts.split(), rank="0") if hosts else ["--standalone"]
    return [sys.executable, *torchrun(count, rendezvous), str(run.folder)]


def torchrun(each: int, rendezvous: list[str]) -> list[str]:
    """torchrun's module and arguments, without restarts: a run continues from its checkpoint by being resumed."""
    return ["-m", "torch.distributed.run", f"--nproc-per-node={each}", "--max-restarts=0", *rendezvous, "-m", TRAINER]


def environment(config: RunConfig, device: Device | None = None) -> dict[str, str]:
    """Variables to add to the trainer's environment; those that the user has set are left out. device: None for the
    first one there is.

    Waiting threads sleep soon, so that page and model server get their share of a CPU. malloc keeps freed memory:
    training on a CPU allocates and frees the same large blocks every step, and the kernel zeroes the pages of
    each fresh one. Where that is so, small blocks are merged with their neighbours as soon as they are freed: glibc
    cuts an aligned block out of a larger one, and while the cuttings lie in its caches no block of the same size fits
    there again. In float32 the largest blocks go back to the kernel all the same: a score matrix of 1024 tokens finds
    no place of its size between what each layer keeps, and the heap grew by one a layer.
    """
    count = processes(config)
    ordered = config.training.threads
    device = device or devices()[0]
    malloc_tunables = MERGE_AT_ONCE if device.kind == "cpu" else ()
    mmap_threshold = OWN_PAGES if device.kind == "cpu" and base_itemsize(config, device) == 4 else 1 << 32
    threads = ordered if isinstance(ordered, int) else max(1, cores() // count)
    variables = {
        **thread_environment(),
        "OMP_NUM_THREADS": str(threads),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
        "MALLOC_MMAP_THRESHOLD_": str(mmap_threshold),
        "MALLOC_ARENA_MAX": "2",
        "GLIBC_TUNABLES": ":".join(("glibc.malloc.hugetlb=1", *malloc_tunables)),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    if not config.training.compile:
        variables["TORCHDYNAMO_DISABLE"] = "1"  # else libraries load the compiler at import
    return {key: value for key, value in variables.items() if key not in os.environ}


def secrets(config: RunConfig) -> tuple[str, ...]:
    """Names of the secrets that an order's trainer needs: of the Hub where it fetches from there, of trackers, a judge.

    A reward that is a program gets all: it may ask a service of its own.
    """
    named = [source.source for source in config.data.sources()]
    named += [config.data.eval] if isinstance(config.data.eval, str) else []
    fetches = config.place.remote or config.model.kind == "hub" or any(map(data_hub.is_hub_id, named))
    rewards = getattr(config.stage, "rewards", ())
    trackers = tuple(f"{tracker.upper()}_" for tracker in config.training.report_to)
    every = any(reward.code for reward in rewards)
    return tuple(
        name
        for name in filter(credentials.SECRET.search, os.environ)
        if every
        or (name in credentials.HUB and (fetches or "trackio" in config.training.report_to))
        or (name == endpoint.KEY and any(reward.address for reward in rewards))
        or name.startswith(trackers)
    )


# -- several hosts


def hosts(config: RunConfig, count: int, run: str = "RUN") -> dict[str, Any]:
    """The run on `count` hosts, training.devices on each: the command for every host, and files for Slurm and
    SkyPilot.

    run: the run's folder, on a file system that all hosts share. HOST0 stands for the first host's name. The
    commands are for the checkout's folder.
    """
    each = config.training.device_count
    folder, head = shlex.quote(run), f"HOST0:{PORT}"
    return {
        "commands": [
            _first(str(count), head, folder),
            *(_other(str(count), each, str(rank), head, folder) for rank in range(1, count)),
        ],
        "slurm": _slurm(config, count, each),
        "skypilot": _skypilot(config, count, each),
    }


def _rendezvous(count: str, head: str, rank: str) -> list[str]:
    """torchrun's rendezvous arguments; head: name:port."""
    name, _, port = head.rpartition(":")
    return [f"--nnodes={count}", f"--node-rank={rank}", f"--master-addr={name}", f"--master-port={port}"]


def _first(count: str, head: str, run: str) -> str:
    return f'{HOSTS}="{count} {head}" python -m studio.supervise {run}'


def _other(count: str, each: int, rank: str, head: str, run: str) -> str:
    return " ".join(["python", *torchrun(each, _rendezvous(count, head, rank)), run])


def _either(count: str, each: int, rank: str, head: str) -> str:
    """One shell line for all hosts, which chooses the command by the host's rank."""
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
    """sky launch FILE --env RUN=…; the run's folder and its model are in a mounted home."""
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
