"""Trackers of a run: what each is told, what is refused before the start, and what the trackers themselves write."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from studio import auto, config, preflight, trackers
from studio.__main__ import main
from studio.errors import OrderError
from studio.run import Run
from studio.trackers import TRACKERS
from studio.training import Training
from tests.worker.carrying import carry, order, rows, steps

RUN = Path("/home/me/run")
SENDING = {"wandb": ("WANDB_MODE", "online"), "swanlab": ("SWANLAB_MODE", "online")}


@pytest.fixture(autouse=True)
def _no_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without accounts; what a run sets in it is taken back."""
    monkeypatch.setenv("HOME", str(home))
    for tracker in TRACKERS.values():
        for key in (*tracker.settings, *tracker.offline, tracker.key):
            if key:
                monkeypatch.setenv(key, "")  # so that it is taken back
                monkeypatch.delenv(key)


def test_every_tracker_of_an_order_is_known() -> None:
    assert Training(report_to=tuple(TRACKERS)).report_to == tuple(TRACKERS)


def test_without_an_account_metrics_stay_here_and_what_is_set_comes_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trackers.settings("wandb", RUN)["WANDB_MODE"] == "offline"
    assert "wandb sync /home/me/run/wandb" in trackers.offline_note("wandb", RUN)
    assert trackers.settings("mlflow", RUN)["MLFLOW_TRACKING_URI"] == f"sqlite:///{home}/mlflow.db"
    assert not any(trackers.is_offline(name) for name in ("trackio", "tensorboard", "mlflow"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert "MLFLOW_TRACKING_URI" not in trackers.settings("mlflow", RUN)
    (home / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert "WANDB_MODE" not in trackers.settings("wandb", RUN)
    monkeypatch.setenv("SWANLAB_API_KEY", "secret")
    assert "SWANLAB_MODE" not in trackers.settings("swanlab", RUN)


@pytest.mark.parametrize("name", SENDING)
def test_sending_without_an_account_is_refused_before_the_start(
    name: str, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "installed", lambda package: True)
    ordered = config.parse(f"{{model: {tiny_model}, data: {{train: {tiny_data}}}, training: {{report_to: [{name}]}}}}")
    preflight.check(ordered)
    monkeypatch.setenv(*SENDING[name])
    with pytest.raises(OrderError, match=f"{SENDING[name][0]}=online .* no account") as refused:
        preflight.check(ordered)
    assert "stay on this computer" in refused.value.hint
    monkeypatch.setenv(TRACKERS[name].key, "secret")
    preflight.check(ordered)


def test_a_dashboard_is_opened_by_the_trackers_own_viewer(
    tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(auto, "installed", lambda package: package != "mlflow")
    opened: list[list[str]] = []
    monkeypatch.setattr("studio.commands.dashboard.subprocess.run", lambda command, **_: opened.append(command))
    run = order(tiny_model, rows(home / "rows.json"), "training.report_to=[wandb,tensorboard,mlflow]")
    assert main(["dashboard", "--port", "6007"]) == 0
    assert opened[0][1:5] == ["-m", "tensorboard.main", "--logdir", str(run.folder / "tensorboard")]
    assert opened[0][-4:] == ["--host", "127.0.0.1", "--port", "6007"]
    for asked, words in {"mlflow": "not installed", "wandb": "no viewer", "trackio": "nothing for trackio"}.items():
        assert main(["dashboard", run.id, "--tracker", asked]) == 2
        assert words in capsys.readouterr().err
    assert len(opened) == 1


def test_what_to_type_for_the_curves(tmp_path: Path) -> None:
    assert trackers.open_command(("wandb", "mlflow"), tmp_path) == f"python -m studio dashboard {tmp_path.name}"
    assert trackers.open_command(("wandb",), tmp_path) == trackers.open_command((), tmp_path) == ""
    (tmp_path / "wandb" / "offline-run-1").mkdir(parents=True)
    assert trackers.open_command(("swanlab", "wandb"), tmp_path) == f"wandb sync {tmp_path}/wandb/offline-run-*"


def tensorboard_losses(run: Run) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [entry.value for entry in EventAccumulator(str(run.folder / "tensorboard")).Reload().Scalars("train/loss")]


def trackio_losses(run: Run) -> list[float]:
    from trackio.sqlite_storage import SQLiteStorage

    return [entry["train/loss"] for entry in SQLiteStorage.get_logs(trackers.PROJECT, run.id) if "train/loss" in entry]


def mlflow_losses(run: Run) -> list[float]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{run.folder.parents[1]}/mlflow.db")
    experiment = client.get_experiment_by_name(trackers.PROJECT)
    assert str(run.folder.parents[1]) in experiment.artifact_location
    [found] = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{run.id}'")
    return [metric.value for metric in client.get_metric_history(found.info.run_id, "loss")]


def wandb_losses(run: Run) -> list[float]:
    """HistoryItem's value_json (field 16, tag 0x82 0x01) behind its key; wandb has no reader of its files in Python."""
    import wandb

    wandb.teardown()  # as the end of the trainer's process does: what was logged is written by then
    [file] = (run.folder / "wandb").glob("offline-run-*/*.wandb")
    found = re.findall(rb"train/loss\x82\x01.([\d.]+)", file.read_bytes(), re.DOTALL)
    return [float(value) for value in dict.fromkeys(found)]  # each stands in the summary too


READERS: dict[str, Callable[[Run], list[float]]] = {
    "tensorboard": tensorboard_losses,
    "trackio": trackio_losses,
    "mlflow": mlflow_losses,
    "wandb": wandb_losses,
}


@pytest.mark.rare
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_holds_the_curve(name: str, tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("TRACKIO_DIR", str(home / "trackio"))
    run = order(tiny_model, rows(home / "rows.json"), "training.max_steps=3", f"training.report_to=[{name}]")
    losses = steps(carry(run))
    assert len(losses) == 3
    if name in READERS:
        assert READERS[name](run) == pytest.approx(losses, rel=1e-3)
    else:  # swanlab's records have no reader of its own
        assert any(file.stat().st_size for file in (run.folder / "swanlab").rglob("*") if file.is_file())
