"""One job in a worker process of its own: words or an order go in, files or an answer come out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from studio import credentials, process
from studio.child_process import how_ended
from studio.device import default_environment
from studio.errors import ExportError
from studio.home import PROJECT, subfolder
from studio.talk.chat import SERVER_ENVIRONMENT

Progress = Callable[[int, int], None]


def ask_worker(
    command: list[str], order: dict[str, Any], progress: Progress = lambda *_: None, secrets: Sequence[str] = ()
) -> Any:
    """The answer of `python -m …` to an order, both JSON (lines.answer_order). Raises ExportError as run_worker."""
    with tempfile.TemporaryDirectory(dir=subfolder("cache")) as folder:
        asked, answered = Path(folder, "order.json"), Path(folder, "answer.json")
        asked.write_text(json.dumps(order, ensure_ascii=False, default=str), encoding="utf-8")
        run_worker([*command, str(asked), str(answered)], progress, secrets)
        return json.loads(answered.read_text(encoding="utf-8"))


def open_worker(command: list[str], stderr: Any, secrets: Sequence[str]) -> subprocess.Popen[str]:
    """`python -m …` with these secrets, ending with this process; what it prints can be read as text."""
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=PROJECT,
        env={
            **credentials.child_environment(*secrets),
            **SERVER_ENVIRONMENT,
            **default_environment(),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        errors="replace",
        preexec_fn=partial(process.die_with_parent, os.getpid()),
    )


def run_worker(command: list[str], progress: Progress = lambda *_: None, secrets: Sequence[str] = ()) -> None:
    """Run `python -m …` to its end; lines like 3/20 are progress. secrets: those it needs. Raises ExportError."""
    output: list[str] = []
    with open_worker(command, subprocess.STDOUT, secrets) as worker:
        for line in worker.stdout:
            done, slash, total = line.strip().partition("/")
            if slash and done.isdigit() and total.isdigit():
                progress(int(done), int(total))
            elif line.strip():
                output.append(line.strip())
    if worker.returncode:
        last = how_ended(worker.returncode, "\n".join(output[-1:]))
        if last.startswith('{"error"'):
            error = json.loads(last)["error"]
            raise ExportError(error["message"], error["hint"], error["where"])
        hint = "If memory was short, end the chat or a training first."
        raise ExportError(f"The worker failed: {last[:300]}", hint, command[0])
