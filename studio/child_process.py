"""A Python process that runs to its end: what it prints, or the last line of what went wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from studio import credentials
from studio.home import PROJECT


class ProcessFailed(Exception):
    """The process ended with an error: the last line that it wrote to standard error, else its exit code."""


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
        raise ProcessFailed(last_line(done.stderr, f"exit code {done.returncode}"))
    return done.stdout


def last_line(text: str, otherwise: str = "") -> str:
    """The last line of what a process wrote, in which Python says what went wrong."""
    return (text.strip().splitlines() or [otherwise])[-1]
