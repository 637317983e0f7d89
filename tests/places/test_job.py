"""A run as a Hugging Face Job, against a fake of the Hub's HTTP whose Jobs are processes of this computer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio import config, queue, run
from studio.places.job import Job
from studio.run import create
from tests.faults import stage
from tests.places import hub as fake
from tests.places.test_ssh import check_result, over, until

TOKEN = "hf_secretsecretsecretsecret"


@pytest.fixture
def hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake.Hub]:
    with fake.serving(tmp_path / "hub") as hub:
        for key, value in {
            "HF_ENDPOINT": hub.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "hf"),
            "STUDIO_HUB_LOOK": "0.5",
            "no_proxy": "127.0.0.1",
        }.items():
            monkeypatch.setenv(key, value)
        yield hub


def order(model: Path, rows: Path, **training: object) -> dict:
    return {
        "name": "rented",
        "model": str(model),
        "data": {"train": str(rows), "max_length": 64},
        "method": {"name": "lora", "rank": 4},
        "training": {"batch_size": 4, "probe": False, "threads": 1, "samples": 0, **training},
        "place": {"kind": "job", "flavor": "t4-small"},
    }


def test_a_job_gives_the_same_result_and_never_the_token(
    hub: fake.Hub, home: Path, tiny_model: Path, tiny_data: Path
) -> None:
    from studio.worker import train as worker

    there = order(tiny_model, tiny_data, max_steps=6)
    rented = queue.submit(config.build(there))
    assert until(rented, over) == "finished", run.summary(rented)
    here = create(config.build({key: value for key, value in there.items() if key != "place"}))
    assert worker.main(here) == 0
    assert (rented.result / "adapter_model.safetensors").read_bytes() == (
        here.result / "adapter_model.safetensors"
    ).read_bytes()
    assert hub.jobs[0].process.wait(30) == 0  # before its files are read
    spec = hub.jobs[0].spec
    assert spec["flavor"] == "t4-small"
    assert spec["timeoutSeconds"] >= 1800
    assert spec["secrets"] == {"HF_TOKEN": TOKEN}
    assert sum(TOKEN.encode() in body for body in hub.bodies) == 1  # the Job's secret, and nowhere else
    written = [
        file
        for top in (home, hub.folder)
        for file in top.rglob("*")
        if file.is_file() and TOKEN.encode() in file.read_bytes()
    ]
    assert written == []


def test_a_job_that_met_its_time_limit_is_resumed_in_another(
    hub: fake.Hub, home: Path, tiny_model: Path, tiny_data: Path
) -> None:
    hub.extra = stage.fake(pause=0.3, save_every=10)
    rented = queue.submit(config.build(order(tiny_model, tiny_data, max_steps=100)))
    until(rented, lambda state: any((hub.folder / "me").glob("*/runs/*/checkpoints/*/manifest.json")))
    for folder in hub.folder.glob("home-0/runs/*"):
        os.killpg(hub.jobs[0].process.pid, signal.SIGKILL)
        _end_all(folder)
    assert until(rented, over) == "failed"
    told = run.summary(rented)
    assert "Job timeout" in told["cause"]
    assert "place.timeout" in told["action"]
    hub.extra = stage.fake(save_every=10)  # the rest in a hurry
    queue.resume(rented)
    assert until(rented, over) == "finished", run.summary(rented)
    assert len(hub.jobs) == 2
    steps = [event["step"] for event in run.current_events(rented.events()) if event["kind"] == "step"]
    assert steps == list(range(1, 101))
    check_result(rented, 100)
    first = next(event["step"] for event in rented.events() if event["kind"] == "step" and event["attempt"] == 2)
    assert first > 1, "the second Job goes on from the copied checkpoint"


def _end_all(folder: Path) -> None:
    """The Job's computer is gone, with everything on it."""
    from studio import process

    process.kill_all(lambda: process.holders(folder / "lock") + process.holders(folder / "trainer.lock"))


def test_a_stop_goes_through(hub: fake.Hub, home: Path, tiny_model: Path, tiny_data: Path) -> None:
    hub.extra = stage.fake(pause=0.2)
    rented = queue.submit(config.build(order(tiny_model, tiny_data, max_steps=100_000)))
    until(rented, lambda state: run.summary(rented)["step"] >= 3)
    queue.stop(rented)
    assert until(rented, over) == "stopped"
    check_result(rented, run.summary(rented)["step"])
    assert hub.jobs[0].process.wait(30) == 0  # nobody pays for a Job whose run has ended


def test_without_credit_or_token_it_says_so(
    hub: fake.Hub, home: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail = True
    rented = queue.submit(config.build(order(tiny_model, tiny_data, max_steps=2)))
    assert until(rented, over) == "failed"
    assert "402" in run.summary(rented)["cause"]
    assert "credit" in run.summary(rented)["action"]
    monkeypatch.delenv("HF_TOKEN")
    time.sleep(1)
    second = queue.submit(config.build(order(tiny_model, tiny_data, max_steps=2)))
    assert until(second, over) == "failed"
    assert "HF_TOKEN" in run.summary(second)["action"]


def test_the_time_limit_follows_the_forecast() -> None:
    assert Job().limit(60) == 1800
    assert Job().limit(7200) == 1.5 * 7200 + 900
    assert Job(timeout="90m").limit(7200) == 5400
