"""Model files from the Hugging Face Hub: safetensors and tokenizer, into its cache."""

from __future__ import annotations

import os
from pathlib import Path

from studio.base import shards
from studio.base.report import Report, silent
from studio.errors import ModelError, reason_of
from studio.events import FULL

MODEL_FILES = [
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*",
    "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model", "chat_template*", "LICENSE*"
]  # fmt: skip


def cached(repo: str, revision: str | None) -> Path | None:
    """A complete snapshot in the Hub cache, else None. Never touches the network."""
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(repo, revision=revision, allow_patterns=MODEL_FILES, local_files_only=True))
    except (OSError, ValueError):
        return None
    return path if shards.complete(path) else None


def download(repo: str, revision: str | None, report: Report = silent) -> Path:
    """Download a snapshot into the Hub cache (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE honoured); safetensors only.

    What is here already is used where the Hub refuses it, as without a token. Raises ModelError.
    """
    from huggingface_hub import snapshot_download  # late, as it costs every command and supervisor a tenth of a second

    why = unreachable()
    if why:
        snapshot = cached(repo, revision)
        if snapshot:
            return snapshot
        message = f"{repo} is not on this computer and the Hub could not be reached ({why})."
        hint = "Check the network (HF_ENDPOINT, HF_HUB_OFFLINE), or use starter or a local folder."
        raise ModelError(message, hint, "model", "network")
    report(f"Downloading {repo} from the Hub", 0, 0)
    try:
        path = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=MODEL_FILES,
            ignore_patterns=[*shards.IGNORED],
            tqdm_class=_progress(repo, report),
            etag_timeout=10,
        )
    except errors() as error:
        failure = _failure(error, repo, revision)
        snapshot = cached(repo, revision) if failure.reason != "disk" else None
        if snapshot is None:
            raise failure from error
        path = str(snapshot)
    shards.loadable(Path(path))
    return Path(path)


def _failure(error: Exception, repo: str, revision: str | None) -> ModelError:
    """The ModelError for a failed download."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):  # a kind of RepositoryNotFoundError
        hint = f"Open https://huggingface.co/{repo}, accept, and set HF_TOKEN."
        return ModelError(f"{repo} is gated: its owner wants you to accept terms first.", hint, "model", "gated")
    if isinstance(error, RevisionNotFoundError):
        hint = "Leave the revision out, or look it up on the model's page."
        return ModelError(f"{repo} has no revision {revision!r}.", hint, "model")
    if isinstance(error, RepositoryNotFoundError):
        hint = "Check the spelling; for a private one set HF_TOKEN. A folder on this computer is given by its path."
        return ModelError(f"The Hub has no model {repo}, or it is private.", hint, "model")
    if isinstance(error, HFValidationError):
        hint = "A Hub id looks like Qwen/Qwen2.5-0.5B-Instruct."
        return ModelError(f"{repo!r} is neither a folder nor a Hub id.", hint, "model")
    message = f"{repo} could not be downloaded ({reason_of(error)})."
    hint = "Try again; what came already is kept."
    return ModelError(message, hint, "model", "disk" if getattr(error, "errno", None) in FULL else "network")


def errors() -> tuple[type[Exception], ...]:
    """What a request to the Hub raises: no network, a refusal, a name that is none."""
    import httpx2
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    return httpx2.HTTPError, OSError, HFValidationError, EntryNotFoundError


def offline() -> bool:
    """Whether HF_HUB_OFFLINE is set: what is on this computer is used, and the Hub is not asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def unreachable() -> str:
    """Why the Hub cannot be asked, or "". One short request: the client's own retries take half a minute."""
    import httpx2
    from huggingface_hub import constants

    if offline():
        return "HF_HUB_OFFLINE is set"
    try:
        httpx2.head(constants.ENDPOINT, timeout=5)
    except httpx2.HTTPError as error:
        return f"{constants.ENDPOINT}: {reason_of(error)}"
    return ""


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
