"""Where a base model comes from: the starter, a Hub id, a local folder, a .gguf file. One place, no torch.

`fetch` ends with a folder of safetensors and a tokenizer that every worker can load from.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studio.base import shards
from studio.errors import ModelError
from studio.events import FULL
from studio.home import PROJECT, draft, room

Report = Callable[[str, int, int], None]  # what is going on, bytes done, bytes in all (0: unknown)

WANTED = ["*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
          "added_tokens.json", "vocab*", "merges.txt", "*.model", "chat_template*", "LICENSE*"]


class ModelOrder(BaseModel):
    """Which base model. A bare string in the order means {source: string}."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str = Field("starter", min_length=1, title="Model",
                        description="starter (a small model that learns on a laptop), a Hugging Face id, a folder, or a .gguf file.")
    revision: str | None = Field(None, title="Revision", description="Branch, tag or commit on the Hub; left out: the newest.",
                                 json_schema_extra={"advanced": True})

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value

    @property
    def kind(self) -> str:
        """starter, gguf, folder or hub."""
        if self.source == "starter":
            return "starter"
        if self.source.lower().endswith(".gguf"):
            return "gguf"
        path = Path(self.source).expanduser()
        if path.exists() or self.source.startswith(("/", "./", "../", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.source):
            return "folder"
        return "hub"


def silent(what: str, done: int, total: int) -> None:
    """A Report that says nothing."""


def fetch(order: ModelOrder, report: Report = silent) -> Path:
    """A local folder with the model's safetensors and tokenizer, made if need be. Raises ModelError with what was tried."""
    if order.kind == "starter":
        from studio.base.starter import prepare
        return prepare(report)
    if order.kind == "gguf":
        return _from_gguf(Path(order.source).expanduser(), report)
    if order.kind == "folder":
        return _folder(Path(order.source).expanduser())
    return from_hub(order.source, order.revision, report)


def local(order: ModelOrder) -> Path | None:
    """The folder `fetch` would give if nothing has to be fetched for it, else None. Never touches the network."""
    if order.kind == "starter":
        from studio.base.starter import ready
        return ready()
    if order.kind == "gguf":
        path = Path(order.source).expanduser()
        target = _gguf_target(path) if path.is_file() else None
        return target if target and (target / "config.json").is_file() else None
    if order.kind == "folder":
        path = Path(order.source).expanduser().resolve()
        return path if (path / "config.json").is_file() else None
    from huggingface_hub import snapshot_download
    try:
        path = Path(snapshot_download(order.source, revision=order.revision, allow_patterns=WANTED, local_files_only=True))
    except (OSError, ValueError):
        return None
    return path if shards.there(path) else None


def check(order: ModelOrder) -> Path | None:
    """The local folder if there is one already, None if one has to be fetched; raises ModelError for a path that is no model."""
    if order.kind == "folder":
        return _folder(Path(order.source).expanduser())
    if order.kind == "gguf":
        _check_gguf(Path(order.source).expanduser())
    return local(order)


def _folder(path: Path) -> Path:
    path = path.resolve()
    if not path.is_dir():
        raise ModelError(f"{path} is no model folder." if path.exists() else f"There is no model folder {path}.",
                         "Give an existing folder, a Hugging Face id such as Qwen/Qwen2.5-0.5B-Instruct, "
                         "a .gguf file, or starter.", "model")
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json, so it is no model folder.",
                         "Give the folder that holds config.json and the .safetensors files.", "model")
    shards.loadable(path)
    return path


def from_hub(repo: str, revision: str | None, report: Report = silent) -> Path:
    """Download a snapshot into the Hub cache (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE honoured); safetensors only."""
    import httpx  # late, as it costs every command and every supervisor a tenth of a second
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    why = unreachable()
    if why:
        cached = local(ModelOrder(source=repo, revision=revision))
        if cached:
            return cached
        raise ModelError(f"{repo} is not on this computer and the Hub could not be reached ({why}).",
                         "Check the network (HF_ENDPOINT, HF_HUB_OFFLINE), or use starter or a local folder.", "model", "network")
    report(f"Downloading {repo} from the Hub", 0, 0)
    try:
        path = Path(snapshot_download(repo, revision=revision, allow_patterns=WANTED, ignore_patterns=[*shards.IGNORED],
                                      tqdm_class=_progress(repo, report), etag_timeout=10))
    except GatedRepoError as error:
        raise ModelError(f"{repo} is gated: its owner wants you to accept terms first.",
                         f"Open https://huggingface.co/{repo}, accept, and set HF_TOKEN.", "model", "gated") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repo} has no revision {revision!r}.", "Leave the revision out, or look it up on the model's page.", "model") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"The Hub has no model {repo}, or it is private.", "Check the spelling; for a private one set HF_TOKEN. "
                         "A folder on this computer is given by its path.", "model") from error
    except HFValidationError as error:
        raise ModelError(f"{repo!r} is neither a folder nor a Hub id.", "A Hub id looks like Qwen/Qwen2.5-0.5B-Instruct.", "model") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        reason = "disk" if getattr(error, "errno", None) in FULL else "network"
        raise ModelError(f"{repo} could not be downloaded ({_short(error)}).", "Try again; what came already is kept.", "model", reason) from error
    shards.loadable(path)
    return path


def unreachable() -> str:
    """Why the Hub cannot be asked at all, or "". Asked once with a short limit: the client's own retries take half a minute."""
    import httpx
    from huggingface_hub import constants
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        httpx.head(constants.ENDPOINT, timeout=5)
    except httpx.HTTPError as error:
        return f"{constants.ENDPOINT}: {_short(error)}"
    return ""


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0][:160].rstrip(".")


def _progress(repo: str, report: Report) -> type:
    """A tqdm stand-in that hands byte counts to `report`."""
    from huggingface_hub.utils import tqdm as hub_tqdm

    class Progress(hub_tqdm):
        def __init__(self, *args: object, **options: object):
            options["disable"] = False
            self._quiet = open(os.devnull, "w")  # noqa: SIM115 - closed in close()
            options["file"] = self._quiet
            super().__init__(*args, **options)

        def update(self, n: float = 1) -> bool | None:
            shown = super().update(n)
            if self.unit == "B":
                report(f"Downloading {repo}", int(self.n), int(self.total or 0))
            return shown

        def close(self) -> None:
            super().close()
            self._quiet.close()

    return Progress


def _gguf_target(path: Path) -> Path:
    mark = hashlib.sha256(f"{path.resolve()}:{path.stat().st_size}:{path.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    return room("models") / f"gguf-{path.stem}-{mark}"


def _check_gguf(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"There is no file {path.absolute()}.", "Give the path of a .gguf file on this computer.", "model")
    with open(path, "rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"{path} does not begin with GGUF, so it is no GGUF file.", "Download it again.", "model")


def _from_gguf(path: Path, report: Report) -> Path:
    _check_gguf(path)
    target = _gguf_target(path)
    return target if (target / "config.json").is_file() else convert(path, target, report)


def convert(gguf: Path, target: Path, report: Report) -> Path:
    """GGUF to a folder of bf16 safetensors, in a worker process of its own; the folder appears whole or not at all."""
    report(f"Converting {gguf.name} to safetensors, once", 0, 0)
    temporary = draft(target)
    done = subprocess.run([sys.executable, "-m", "studio.worker.convert", str(gguf), str(temporary)], cwd=PROJECT,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(f"{gguf.name} could not be converted: {reason[:300]}", "Another quantization of it (Q8_0, F16) or the safetensors "
                         "original may work.", "model")
    try:
        os.rename(temporary, target)
    except OSError:  # another process was first
        shutil.rmtree(temporary, ignore_errors=True)
    return target
