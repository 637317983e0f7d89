"""A large JSON Lines file, read by as many processes as there are processors (at most 8), each a part of it."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

from studio import credentials
from studio.data.containers import Container
from studio.data.shard import Shard
from studio.errors import DataError
from studio.home import PROJECT

LARGE = 48 << 20  # bytes from which a file is read in parts
COMMAND = (sys.executable, "-c", "from studio.data.shard import main; main()")


class ParallelReaders:
    """Processes that wait for their part; none for a file that one process reads. Use with `with`.

    container: None where the file is not read alone.

    They are started before it is known what to read, because loading their libraries takes them a while.
    """

    def __init__(self, path: Path, container: Container | None):
        splittable = (
            container is not None
            and container.name == "jsonl"
            and not container.compression
            and container.encoding == "utf-8"
        )
        self.path, self.total = path, path.stat().st_size
        count = max(1, min(8, os.cpu_count() or 1)) if splittable and self.total > LARGE else 0
        pipe, environment = subprocess.PIPE, credentials.child_environment()
        self.processes = [
            subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, text=True, cwd=PROJECT, env=environment)
            for _ in range(count)
        ]
        self.done = [0] * count

    def __enter__(self) -> ParallelReaders:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            with process:  # waits for its end, and closes the pipes
                process.kill()

    def read(
        self, format: str, mapping: dict[str, Any] | None, folder: Path, report: Callable[[int, int], None]
    ) -> list[Shard]:
        """The shards of all parts, in order; their Arrow files are in the folder. Raises DataError."""
        count = len(self.processes)
        edges = [self.total * k // count for k in range(count + 1)]
        jobs = [
            {
                "path": str(self.path.resolve()),
                "start": start,
                "stop": stop,
                "format": format,
                "mapping": mapping,
                "out": str(folder.resolve() / f"part-{k}.arrow"),
            }
            for k, (start, stop) in enumerate(pairwise(edges))
        ]
        with ThreadPoolExecutor(count) as threads:
            shards = list(threads.map(self._run, range(count), jobs, repeat(report)))
        for shard in shards:
            if isinstance(shard, Exception):
                raise shard
            if shard is None:
                hint = "Is there memory and disk space left? Try again."
                raise DataError(f"Reading {self.path.name} broke off.", hint, self.path.name)
        return shards

    def _run(self, k: int, job: dict[str, Any], report: Callable[[int, int], None]) -> Shard | Exception | None:
        """One part, read by its process, or what it raised; None when that broke off."""
        process = self.processes[k]
        try:
            process.stdin.write(json.dumps(job))
            process.stdin.close()
        except BrokenPipeError:
            return None
        for line in process.stdout:
            self.done[k] = json.loads(line)["done"]
            report(min(sum(self.done), self.total), self.total)
        if (status := process.wait()) == errno.ENOSPC:
            return OSError(status, os.strerror(status), job["out"])
        if status:
            return None
        pickled = Path(job["out"] + ".pickle")
        shard = pickle.loads(pickled.read_bytes())
        pickled.unlink()
        return shard
