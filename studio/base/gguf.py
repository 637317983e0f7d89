"""A model in a .gguf file: converted once into a folder of safetensors under the studio's home."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from studio import child_process
from studio.base.report import Report
from studio.errors import ModelError
from studio.home import subfolder, temporary_path

VERSION = 2  # of the conversion: a folder that an earlier one made is not taken


def target_of(path: Path) -> Path:
    """The folder that a file is converted into, named after its path, size and time."""
    stat = path.stat()
    digest = hashlib.sha256(f"{VERSION}:{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:12]
    return subfolder("models") / f"gguf-{path.stem}-{digest}"


def check(path: Path) -> None:
    """Raise ModelError where the path is no GGUF file."""
    if not path.is_file():
        hint = "Give the path of a .gguf file on this computer."
        raise ModelError(f"There is no file {path.absolute()}.", hint, "model")
    with open(path, "rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"{path} does not begin with GGUF, so it is no GGUF file.", "Download it again.", "model")


def fetch(path: Path, report: Report) -> Path:
    """The folder of safetensors, converted if need be."""
    check(path)
    target = target_of(path)
    return target if (target / "config.json").is_file() else convert(path, target, report)


def convert(gguf: Path, target: Path, report: Report) -> Path:
    """GGUF to a folder of bf16 safetensors, in a worker process of its own; the folder appears whole or not at all."""
    report(f"Converting {gguf.name} to safetensors, once", 0, 0)
    temporary = temporary_path(target)
    try:
        child_process.output_of("-m", "studio.worker.convert", str(gguf), str(temporary))
    except child_process.ProcessFailed as error:
        shutil.rmtree(temporary, ignore_errors=True)
        hint = "Another quantization of it (Q8_0, F16) or the safetensors original may work."
        raise ModelError(f"{gguf.name} could not be converted: {str(error)[:300]}", hint, "model") from error
    try:
        os.rename(temporary, target)
    except OSError:  # another process was first
        shutil.rmtree(temporary, ignore_errors=True)
    return target
