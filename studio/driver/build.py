"""The installed torch's build, read from torch/version.py without importing it."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

WHEELS = "https://download.pytorch.org/whl"


class Build(NamedTuple):
    """version: of torch; cuda, hip, xpu: the versions it was built with ("13.0") or None."""

    version: str
    cuda: str | None = None
    hip: str | None = None
    xpu: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of card it was built for."""
        built = {"cuda": self.cuda, "rocm": self.hip, "xpu": self.xpu}
        return tuple(kind for kind, version in built.items() if version)

    def describe(self) -> str:
        """The build in words: "torch 2.13.0 for CUDA 13.0"."""
        parts = {"CUDA": self.cuda, "ROCm": self.hip, "Intel GPUs": self.xpu}
        built = next(
            (f"{name} {version}" if name != "Intel GPUs" else name for name, version in parts.items() if version),
            "the CPU only",
        )
        return f"torch {self.version.partition('+')[0]} for {built}"


def build() -> Build | None:
    """The torch that a worker would import; None without one."""
    try:
        spec = find_spec("torch")
        text = Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else ""
    except (ImportError, ValueError, OSError):
        return None
    # cuda: Optional[str] = '12.8'
    assignment = r"""^(__version__|cuda|hip|xpu)\s*(?::[^=]+)?=\s*['"]([^'"]+)['"]"""
    values = dict(re.findall(assignment, text, re.M))
    return Build(values.pop("__version__"), **values) if "__version__" in values else None


def install(index: str) -> str:
    """The command that replaces torch; it uninstalls first, as pip takes all wheels of a version for equal."""
    installed, pip = build(), f"{shlex.quote(sys.executable)} -m pip"
    version = f"=={installed.version.partition('+')[0]}" if installed else ""
    return f"{pip} uninstall -y torch && {pip} install torch{version} --index-url {WHEELS}/{index}"
