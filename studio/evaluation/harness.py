"""A task of lm-eval (EleutherAI's lm-evaluation-harness): one that the package knows by name, or one's own YAML file.

The file is read here without being carried out, so that page and terminal say at once what it lacks, and what it runs.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio import yaml_text
from studio.base import hub
from studio.errors import DataError, OrderError, wrong_setting

INSTALL = 'pip install "lm-eval>=0.4.13,<0.5"'
EXAMPLE = "docs/benchmarks/capitals.yaml"
FORMATS = ("json", "csv", "parquet", "arrow", "text")  # values of dataset_path that name no data set of the Hub
FUNCTION = "!function "


class BenchmarkOrder(BaseModel):
    """Which task, how much of it, and how it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(min_length=1, max_length=1000)
    limit: int | None = Field(None, ge=1, le=10_000_000)  # questions
    chat: bool = False  # in the model's chat template
    shots: int | None = Field(None, ge=0, le=100)  # examples in the prompt; None: the task's own

    @property
    def file(self) -> Path | None:
        """The task's YAML file; None where the package knows it by name."""
        is_file = self.task.lower().endswith((".yaml", ".yml"))
        return Path(self.task).expanduser().absolute() if is_file else None


def order_of(settings: Any) -> BenchmarkOrder:
    """The order from plain settings. Raises OrderError, which names a wrong setting."""
    try:
        return BenchmarkOrder.model_validate(settings)
    except ValidationError as error:
        raise wrong_setting(error, "benchmark") from error


def installed() -> bool:
    return importlib.util.find_spec("lm_eval") is not None


def check(order: BenchmarkOrder) -> list[str]:
    """The Python functions that the task's file runs. Raises OrderError or DataError where the task cannot be asked."""
    if not installed():
        raise OrderError("The package lm-eval is not installed.", f"{INSTALL} installs it.", "benchmark")
    if order.file is None:
        if not re.fullmatch(r"[\w.:+-]+", order.task):
            hint = "Give a name that lm-eval knows, as arc_easy, or a file that ends in .yaml."
            raise OrderError(f"{order.task[:200]!r} is no name of a task.", hint, "benchmark")
        _check_hub(order.task)
        return []
    config = read(order.file)
    _check_config(order.file, config)
    if is_remote(order):
        _check_hub(str(config.get("dataset_path")))
    return sorted({text.removeprefix(FUNCTION) for text in _strings(config) if text.startswith(FUNCTION)})


class _Loader(yaml_text.Loader):
    """Names the functions of a file instead of importing them."""


_Loader.add_constructor("!function", lambda loader, node: f"{FUNCTION}{loader.construct_scalar(node)}")


def read(file: Path, seen: frozenset[Path] = frozenset()) -> dict[str, Any]:
    """The task's settings, with those of the files that it includes. Raises OrderError where it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise OrderError(f"{file} cannot be read: {reason}.", "Give the file of a task.", "benchmark") from error
    config = yaml_text.read(text, file.name, _Loader)
    if not isinstance(config, dict):
        raise OrderError(f"{file.name} is no task: it names no settings.", f"{EXAMPLE} is one.", "benchmark")
    included = config.get("include", [])
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included]:
        other = (file.parent / str(name)).resolve()
        if other in seen:
            raise OrderError(f"{file.name} includes itself.", "Leave one include out.", "benchmark")
        merged |= read(other, seen | {file.resolve()})
    return merged | config


def _check_config(file: Path, config: dict[str, Any]) -> None:
    """Raise OrderError for what is no single task, or would run programs of others; DataError for missing rows."""
    if not isinstance(config.get("task"), str) or "group" in config:
        hint = f"Give it task: NAME, as {EXAMPLE} has it."
        raise OrderError(f"{file.name} is not the file of one task.", hint, "benchmark")
    kwargs = config.get("dataset_kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    metrics = [entry for entry in config.get("metric_list") or [] if isinstance(entry, dict)]
    for name, is_used in (
        ("trust_remote_code", kwargs.get("trust_remote_code")),
        ("unsafe_code", config.get("unsafe_code")),
        ("hf_evaluate", any(entry.get("hf_evaluate") for entry in metrics)),
    ):
        if is_used:
            message = f"{file.name} sets {name}: programs of others would run on this computer."
            hint = f"Leave {name} out; data in plain files, and metrics of lm-eval itself, need none."
            raise OrderError(message, hint, "benchmark")
    for name in _strings(kwargs.get("data_files")) if config.get("dataset_path") in FORMATS else ():
        if "://" in name or "*" in name:  # a pattern is left to the library
            continue
        if not (file.parent / Path(name).expanduser()).exists():
            hint = "A relative name in data_files is meant from the folder of the YAML file."
            raise DataError(f"{file.name} names {name}, which is not there.", hint, "benchmark")


def is_remote(order: BenchmarkOrder) -> bool:
    """Whether the task's rows come over the network. Raises OrderError where its file cannot be read."""
    file = order.file
    if file is None:
        return True
    config = read(file)
    source = str(config.get("dataset_path") or "")
    files = _strings(config.get("dataset_kwargs"))
    is_here = source in FORMATS or config.get("custom_dataset") or (file.parent / source).exists()
    return not is_here or any("://" in name for name in files)


def _check_hub(source: str) -> None:
    """Raise OrderError where the Hub does not answer; with HF_HUB_OFFLINE, where it left no data here before."""
    why = hub.unreachable()
    if not why or (hub.offline() and _has_data()):
        return
    raise OrderError(
        f"{source} has its questions on the Hub, which does not answer ({why}).",
        "Check the network, or give a task of your own: a YAML file with dataset_path: json, its rows in a file beside "
        f"it, as {EXAMPLE}.",
        "benchmark",
        "network",
    )


def _has_data() -> bool:
    """Whether a data set of the Hub is kept on this computer."""
    from huggingface_hub import constants

    folder = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets"))
    return folder.is_dir() and any(child.is_dir() and child.name not in FORMATS for child in folder.iterdir())


def _strings(value: Any) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
