"""The installed torch, read from its files: torch/version.py says what it was built for. Nothing of it is imported."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

WHEELS = "https://download.pytorch.org/whl"


class Build(NamedTuple):
    """version: of torch; cuda, hip, xpu: what it was built with ("13.0"), None where it was not."""

    version: str
    cuda: str | None = None
    hip: str | None = None
    xpu: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of card it can drive, were driver and architecture right."""
        built = {"cuda": self.cuda, "rocm": self.hip, "xpu": self.xpu}
        return tuple(kind for kind, version in built.items() if version)

    def describe(self) -> str:
        """For people: "torch 2.13.0 for CUDA 13.0"."""
        parts = {"CUDA": self.cuda, "ROCm": self.hip, "Intel GPUs": self.xpu}
        built = next(
            (f"{name} {version}" if name != "Intel GPUs" else name for name, version in parts.items() if version),
            "the CPU only",
        )
        return f"torch {self.version.partition('+')[0]} for {built}"


def build() -> Build | None:
    """The torch that a worker would import; None where there is none."""
    try:
        found = find_spec("torch")
        text = Path(found.origin).with_name("version.py").read_text() if found and found.origin else ""
    except (ImportError, ValueError, OSError):
        return None
    values = {name: value for name in ("__version__", "cuda", "hip", "xpu") if (value := _value(text, name))}
    return Build(values.pop("__version__"), **values) if "__version__" in values else None


def install(index: str) -> str:
    """The command that puts a torch from one of its wheels' indexes in place of the one that is here. Of one version number there are several
    wheels, which pip takes for the same: so the old one goes first."""
    here, pip = build(), f"{shlex.quote(sys.executable)} -m pip"
    version = f"=={here.version.partition('+')[0]}" if here else ""
    return f"{pip} uninstall -y torch && {pip} install torch{version} --index-url {WHEELS}/{index}"


def _value(text: str, name: str) -> str | None:
    """cuda: Optional[str] = '12.8' -> 12.8; None -> None."""
    found = re.search(rf"""^{name}\s*(?::[^=]+)?=\s*['"]([^'"]+)['"]""", text, re.M)
    return found[1] if found else None
