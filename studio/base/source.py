"""Where a base model comes from: the starter, a Hub id, a local folder, a .gguf file. No torch.

`fetch` ends with a folder of safetensors and a tokenizer that every worker can load from.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, Field, model_validator

from studio.base import gguf, hub, shards, starter
from studio.base.report import Report, silent
from studio.errors import ModelError
from studio.knob import KNOBS, LOADING


class ModelOrder(BaseModel):
    """Which base model. A bare string in the order means {source: string}."""

    model_config = KNOBS
    source: str = Field("starter", min_length=1, title="Model")
    """starter (a small model that learns on a laptop), a Hugging Face id, a folder, or a .gguf file."""
    revision: str | None = Field(None, title="Revision", json_schema_extra=LOADING)
    """Branch, tag or commit on the Hub; left out: the newest."""

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
        is_path = self.source.startswith(("/", "./", "../", "~")) or Path(self.source).expanduser().exists()
        return "folder" if is_path or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.source) else "hub"


def fetch(order: ModelOrder, report: Report = silent) -> Path:
    """A local folder with the model's safetensors and tokenizer, made if need be. Raises ModelError."""
    if order.kind == "starter":
        return starter.prepare(report)
    if order.kind == "gguf":
        return gguf.fetch(Path(order.source).expanduser(), report)
    if order.kind == "folder":
        return _folder(Path(order.source).expanduser())
    return hub.download(order.source, order.revision, report)


def local(order: ModelOrder) -> Path | None:
    """The folder `fetch` would give if nothing has to be fetched for it, else None. Never touches the network."""
    if order.kind == "starter":
        return starter.ready()
    if order.kind == "gguf":
        path = Path(order.source).expanduser()
        target = gguf.target_of(path) if path.is_file() else None
        return target if target and (target / "config.json").is_file() else None
    if order.kind == "folder":
        path = Path(order.source).expanduser().resolve()
        return path if (path / "config.json").is_file() else None
    return hub.cached(order.source, order.revision)


def check(order: ModelOrder) -> Path | None:
    """The local folder, None if it has to be fetched. Raises ModelError for a path that is no model."""
    if order.kind == "folder":
        return _folder(Path(order.source).expanduser())
    if order.kind == "gguf":
        gguf.check(Path(order.source).expanduser())
    return local(order)


def _folder(path: Path) -> Path:
    path = path.resolve()
    if not path.is_dir():
        raise ModelError(
            f"{path} is no model folder." if path.exists() else f"There is no model folder {path}.",
            "Give an existing folder, a Hugging Face id such as Qwen/Qwen2.5-0.5B-Instruct, a .gguf file, or starter.",
            "model",
        )
    if (path / "adapter_config.json").is_file():  # transformers would load the base that it names instead
        hint = f"Merge it (python -m studio merge {path} OUT) and give that folder, or give the base it was trained on."
        raise ModelError(f"{path} holds an adapter (adapter_config.json): it is no model by itself.", hint, "model")
    if not (path / "config.json").is_file():
        hint = "Give the folder that holds config.json and the .safetensors files."
        raise ModelError(f"{path} has no config.json, so it is no model folder.", hint, "model")
    shards.loadable(path)
    return path
