"""This program as it is sent to another computer: its files, their hash, and its requirements."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from studio import template

PACKAGE = Path(__file__).resolve().parent
NAME = "fine-tuning-studio"


def files() -> dict[str, Path]:
    """Files and folders that `python -m studio` needs side by side: {name: path here}."""
    paths = {"studio": PACKAGE}
    if not template.FOLDER.is_relative_to(PACKAGE):
        paths[template.FOLDER.name] = template.FOLDER
    return paths


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Twelve hex digits of a SHA-256 over all files and requirements."""
    digest = hashlib.sha256(requirements().encode())
    for name, top in sorted(files().items()):
        for file in sorted(path for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            digest.update(f"{name}/{file.relative_to(top)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def requirements() -> str:
    """The text of requirements.txt: the checkout's, else the requirements of the installed package."""
    file = PACKAGE.parent / "requirements.txt"
    if file.is_file():
        return file.read_text()
    declared = metadata.requires(NAME) or []
    return "".join(f"{line}\n" for line in declared if "extra ==" not in line)


def versions(*packages: str) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    installed = {}
    for package in packages:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed
