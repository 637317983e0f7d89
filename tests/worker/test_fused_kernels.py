"""liger-kernel's forwards compute what transformers' do (fused_cases.py), in a process whose Triton interprets."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("fused_cases.py")


@pytest.mark.skipif(not (find_spec("liger_kernel") and find_spec("triton")), reason="liger-kernel or Triton is missing")
def test_fused_kernels_under_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", str(CASES)],
        text=True,
        cwd=CASES.parent.parent.parent,
        capture_output=True,
        env={**os.environ, "PYTEST_ADDOPTS": "", "TRITON_INTERPRET": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
