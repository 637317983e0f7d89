"""Push a run's result to the Hugging Face Hub with a model card, private by default.

The token comes from the environment (HF_TOKEN) or, on a Space, from the visitor's login. It is written nowhere and
removed from every message.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.base import hub
from studio.errors import ExportError
from studio.export import card, readme
from studio.run import Run
from studio.runs import results

NOT_PUSHED = ("optimizer.pt", "training_args.bin", "README.md", "manifest.json", "adapter_config.json", card.PICTURE)
Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all


def push(run: Run, repo: str, private: bool = True, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Push a run's result with its model card; returns {repo, url, files, bytes, private}.

    Raises ExportError. A failure on the way adds a warning to the run's events; the run itself stays finished.
    """
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if not token:
        hint = "Make one that may write at huggingface.co/settings/tokens, and set HF_TOKEN before the start."
        raise ExportError("No token for the Hub is set.", hint, "HF_TOKEN")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ExportError(f"{repo!r} is no repository.", "Write it as OWNER/NAME.", "REPO")
    if not run.has_result():
        hint = "Wait until it is finished, or resume it."
        raise ExportError(f"The run {run.id} has no result to push: it is {run.state()}.", hint, "run")
    results.check_result(run)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _prepare(run, Path(scratch))
            return _upload(Path(scratch), repo, private, token, progress)
    except (*hub.errors(), ValueError) as error:
        text = f"The push to {repo} failed: {_reason(error, token)}"
        run.note(text, "Push again: what has arrived is not sent twice.")
        hint = "The run is as it was. Push again: what has arrived is not sent twice."
        raise ExportError(text, hint, "REPO") from error


def _prepare(run: Run, folder: Path) -> None:
    """Fill a folder with links to the result's files, the card, and configs without paths of this computer."""
    for file in run.result.iterdir():
        if file.is_file() and file.name not in NOT_PUSHED and not file.name.startswith("."):
            (folder / file.name).symlink_to(file.resolve())
    card.write(run, folder)
    manifest = json.loads((run.result / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "base": None}, indent=1, ensure_ascii=False))
    adapter = run.result / "adapter_config.json"
    if adapter.is_file():
        config = json.loads(adapter.read_text())
        config["base_model_name_or_path"] = readme.hub_name(run.config.model.source)
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def _upload(folder: Path, repo: str, private: bool, token: str, progress: Progress) -> dict[str, Any]:
    """Upload a folder in one commit, so that no half a model is seen. Files that the Hub has are not sent again."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    total = sum(sizes.values())
    progress(f"making {repo}", 0, total)
    url = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
    progress(f"sending {len(sizes)} files", 0, total)
    api.upload_folder(repo_id=repo, folder_path=folder, repo_type="model", commit_message="Fine-tuned model")
    progress("finishing", total, total)
    return {"repo": repo, "url": str(url), "files": sorted(sizes), "bytes": total, "private": private}


def _reason(error: Exception, token: str) -> str:
    """The first line of an error, without the token."""
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
