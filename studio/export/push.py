"""A run's result to the Hugging Face Hub: private unless told, with a model card, going on where a broken upload stopped.

The token comes from the environment (HF_TOKEN) or, on a Space, from the visitor's login. It is written nowhere, and taken out of
every message.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.errors import ExportError
from studio.export import card, readme
from studio.run import Run

LEFT_BEHIND = ("optimizer.pt", "training_args.bin", "README.md", "manifest.json", "adapter_config.json", card.PICTURE)
Tell = Callable[[str, int, int], None]


def push(
    run: Run, repo: str, private: bool = True, token: str | None = None, tell: Tell = lambda *_: None
) -> dict[str, Any]:
    """{repo, url, files, bytes, private}. Bytes that are on the Hub already are not sent again.

    Raises ExportError; a failure on the way leaves a warning in the run's diary and the run finished as it was.
    """
    token = token or os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if not token:
        raise ExportError(
            "No token for the Hub is set.",
            "Make one that may write at huggingface.co/settings/tokens, and set HF_TOKEN before the start.",
            "HF_TOKEN",
        )
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ExportError(f"{repo!r} is no repository.", "Write it as OWNER/NAME.", "REPO")
    if not (run.result / "manifest.json").is_file():
        raise ExportError(
            f"The run {run.id} has no result to push: it is {run.state()}.",
            "Wait until it is finished, or resume it.",
            "run",
        )
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        with tempfile.TemporaryDirectory() as scratch:
            return _upload(_files(run, Path(scratch)), repo, private, token, tell)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = _reason(error, token)
        run.append(
            "note",
            level="warning",
            text=f"The push to {repo} failed: {reason}",
            hint="Push again: what has arrived is not sent twice.",
        )
        raise ExportError(
            f"The push to {repo} failed: {reason}",
            "The run is as it was. Push again: what has arrived is not sent twice.",
            "REPO",
        ) from error


def _files(run: Run, scratch: Path) -> dict[str, Path]:
    """Path in the repository -> file: the result, its card, and what holds no path of this computer."""
    files = {
        file.name: file
        for file in sorted(run.result.iterdir())
        if file.is_file() and file.name not in LEFT_BEHIND and not file.name.startswith(".")
    }
    card.write(run, scratch)
    manifest = json.loads((run.result / "manifest.json").read_text())
    (scratch / "manifest.json").write_text(json.dumps({**manifest, "base": None}, indent=1, ensure_ascii=False))
    adapter = run.result / "adapter_config.json"
    if adapter.is_file():
        config = {
            **json.loads(adapter.read_text()),
            "base_model_name_or_path": readme.hub_name(run.config.model.source),
        }
        (scratch / "adapter_config.json").write_text(json.dumps(config, indent=2))
    return files | {file.name: file for file in sorted(scratch.iterdir())}


def _upload(files: dict[str, Path], repo: str, private: bool, token: str, tell: Tell) -> dict[str, Any]:
    """One file after the other, the commit last: the repository never shows half a model."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    total, done = sum(file.stat().st_size for file in files.values()), 0
    tell(f"making {repo}", 0, total)
    url = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
    operations = []
    for name, file in files.items():
        operation = CommitOperationAdd(path_in_repo=name, path_or_fileobj=file)
        tell(f"sending {name}", done, total)
        api.preupload_lfs_files(repo, [operation])
        operations.append(operation)
        done += file.stat().st_size
    tell("finishing", total, total)
    api.create_commit(repo, operations, commit_message="Fine-tuned model")
    return {"repo": repo, "url": str(url), "files": sorted(files), "bytes": total, "private": private}


def _reason(error: Exception, token: str) -> str:
    """The first line of what went wrong, without the token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    known = {
        401: "the token is not valid",
        403: "the token may not write there",
        404: "there is no such place, or the token may not see it",
    }
    if status in known:
        return f"{known[status]} ({status})."
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"hf_\w+", "hf_…", text.replace(token, "…"))[:300].rstrip(".") + "."
