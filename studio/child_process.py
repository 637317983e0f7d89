"""Python processes: one that runs to its end and what it prints, or one that outlives this process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from studio import credentials
from studio.home import PROJECT


class ProcessFailed(Exception):
    """The process ended with an error; how_ended says how."""


def begin_apart(words: Sequence[str], stdout: Any, stderr: Any, **options: Any) -> subprocess.Popen[Any]:
    """Begin `python WORDS` in the project's folder and in a session of its own: it outlives this process.

    options: of subprocess, among them the environment.
    """
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        **options,
    )


def output_of(*words: str, env: Mapping[str, str] | None = None) -> str:
    """What `python WORDS` prints, run in the project's folder. Raises ProcessFailed.

    env: the environment; None: this process's without credentials.
    """
    done = subprocess.run(
        [sys.executable, *words],
        cwd=PROJECT,
        env=credentials.child_environment() if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ProcessFailed(how_ended(done.returncode, done.stderr))
    return done.stdout


def last_line(text: str, otherwise: str = "") -> str:
    """The last line of what a process wrote, in which Python says what went wrong."""
    return (text.strip().splitlines() or [otherwise])[-1]


def how_ended(code: int, output: str) -> str:
    """How a process failed: by which signal, else the last line that it wrote, else its exit code.

    code: as of subprocess, negative for a signal.
    """
    if code == -signal.SIGKILL:
        return "it was killed (SIGKILL), most likely because memory ran out."
    if code < 0:
        name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
        return f"it was ended from outside or crashed ({name})."
    return last_line(output, f"exit code {code}")
