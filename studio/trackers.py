"""The trackers that a run's metrics are sent to as well: what each needs, where it writes, and how it is opened.

Without an account of its own a tracker keeps everything on this computer: a run neither waits for a login nor dies of
one. What is set in the environment comes first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import NamedTuple

from studio.home import home

PROJECT = "fine-tuning-studio"  # under which trackers file the runs
SENDING = ("online", "cloud", "run", "shared")  # modes of wandb and swanlab that need an account


class Tracker(NamedTuple):
    """package: as pip knows it. settings: of the environment; {run}, {home}: folders. key: variable that holds an
    account's key, logins: (file, host) where a login is kept, offline: settings without either. viewer: arguments of
    Python that open what was written, sync: what sends it later.
    """

    package: str
    settings: Mapping[str, str] = {}
    key: str = ""
    logins: tuple[str, str] = ("", "")
    offline: Mapping[str, str] = {}
    viewer: Sequence[str] = ()
    sync: str = ""


TRACKERS = {
    "trackio": Tracker("trackio", viewer=("-m", "trackio.cli", "show", "--project", PROJECT)),
    "tensorboard": Tracker(
        "tensorboard",
        {"TENSORBOARD_LOGGING_DIR": "{run}/tensorboard"},
        viewer=("-m", "tensorboard.main", "--logdir", "{run}/tensorboard"),
    ),
    "wandb": Tracker(
        "wandb",
        {"WANDB_PROJECT": PROJECT, "WANDB_DIR": "{run}"},
        "WANDB_API_KEY",
        ("~/.netrc", "api.wandb.ai"),
        {"WANDB_MODE": "offline"},
        sync="wandb sync {run}/wandb/offline-run-*",
    ),
    "mlflow": Tracker(
        "mlflow",
        {
            "MLFLOW_TRACKING_URI": "sqlite:///{home}/mlflow.db",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "{home}/mlflow-artifacts",  # else in the folder that a run is started in
            "MLFLOW_EXPERIMENT_NAME": PROJECT,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        viewer=("-m", "mlflow", "ui", "--backend-store-uri", "sqlite:///{home}/mlflow.db"),
    ),
    "swanlab": Tracker(
        "swanlab",
        {"SWANLAB_LOG_DIR": "{run}/swanlab"},
        "SWANLAB_API_KEY",
        ("~/.swanlab/.netrc", ""),
        {"SWANLAB_MODE": "offline"},
        sync="swanlab sync {run}/swanlab/run-*",
    ),
}


def settings(name: str, run: Path) -> dict[str, str]:
    """The environment of a run's tracker, without what is set already."""
    tracker = TRACKERS[name]
    wanted = {**tracker.settings, **(tracker.offline if is_offline(name) else {})}
    return {key: _filled(value, run) for key, value in wanted.items() if key not in os.environ}


def is_offline(name: str) -> bool:
    """Whether a tracker that could send metrics away keeps them here, for want of an account and of other words."""
    tracker = TRACKERS[name]
    return bool(tracker.offline) and not has_account(name) and not any(key in os.environ for key in tracker.offline)


def has_account(name: str) -> bool:
    tracker = TRACKERS[name]
    return not tracker.key or bool(os.environ.get(tracker.key)) or _has_login(*tracker.logins)


def refusal(name: str) -> str:
    """The setting of the environment that asks a tracker to send metrics without an account; else empty."""
    settings = (f"{key}={os.environ[key]}" for key in TRACKERS[name].offline if os.environ.get(key) in SENDING)
    return "" if has_account(name) else next(settings, "")


def _has_login(file: str, host: str) -> bool:
    try:
        hosts = netrc(Path(file).expanduser()).hosts
    except (OSError, NetrcParseError):
        return False
    return host in hosts if host else bool(hosts)


def offline_note(name: str, run: Path) -> str:
    """In a sentence, why nothing is sent and how it can be."""
    tracker = TRACKERS[name]
    return (
        f"{name} has no account here ({tracker.key} is not set): its metrics stay in the run's folder. "
        f"`{_filled(tracker.sync, run)}` sends them later."
    )


def viewer(name: str, run: Path, port: int | None = None) -> list[str]:
    """The command that opens what a tracker wrote; empty where it has no viewer on this computer."""
    arguments = [_filled(argument, run) for argument in TRACKERS[name].viewer]
    if not arguments:
        return []
    where = ["--port", str(port)] if port and name != "trackio" else []  # trackio takes the first free one
    return [sys.executable, *arguments, "--host", "127.0.0.1", *where]


def open_command(names: Sequence[str], run: Path) -> str:
    """What to type to open what a run's trackers wrote, else to send what they kept here; empty where neither is."""
    if any(TRACKERS[name].viewer for name in names):
        return f"python -m studio dashboard {run.name}"
    kept = (_filled(TRACKERS[name].sync, run) for name in names if any(run.glob(_kept(TRACKERS[name]))))
    return next(kept, "")


def _kept(tracker: Tracker) -> str:
    """Where in a run's folder a tracker keeps what it does not send."""
    return tracker.sync.partition("{run}/")[2]


def _filled(text: str, run: Path) -> str:
    return text.replace("{run}", str(run)).replace("{home}", str(home()))
