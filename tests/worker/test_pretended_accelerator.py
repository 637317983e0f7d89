"""Every method on a pretended accelerator (pretended_cases.py), in a process of its own.

Torch takes such a device only before its first backward pass, and everything that asks torch for an accelerator would
find it from then on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = [Path(__file__).with_name(name) for name in ("pretended_cases.py", "pretended_stages.py")]


@pytest.mark.timeout(600)
def test_every_method_trains_on_a_pretended_accelerator() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", *map(str, CASES)],
        text=True,
        cwd=CASES[0].parent.parent.parent,
        capture_output=True,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
