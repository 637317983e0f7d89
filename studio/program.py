"""This very program, as it is sent to another computer: its files, a hash of them, and the packages it needs."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from studio import template

PACKAGE = Path(__file__).resolve().parent
NAME = "fine-tuning-studio"


def files() -> dict[str, Path]:
    """What must lie beside each other for `python -m studio` to run: name -> file or folder here."""
    found = {"studio": PACKAGE}
    if not template.FOLDER.is_relative_to(PACKAGE):
        found[template.FOLDER.name] = template.FOLDER
    return found


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Twelve hex digits that change with any of the files or requirements."""
    digest = hashlib.sha256(requirements().encode())
    for name, top in sorted(files().items()):
        for file in sorted(path for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            digest.update(f"{name}/{file.relative_to(top)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def requirements() -> str:
    """The text of a requirements file: the checkout's own, else what the installed package declares."""
    file = PACKAGE.parent / "requirements.txt"
    if file.is_file():
        return file.read_text()
    declared = metadata.requires(NAME) or []
    return "".join(f"{line}\n" for line in declared if "extra ==" not in line)
