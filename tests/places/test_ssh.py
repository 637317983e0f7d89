"""A run on another computer over a real sshd on loopback: sent, watched, cut off and taken up again, stopped,
resumed, fetched.

The real trainer gives the same result there as here; where it is the wire that fails, the fake one trains there.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from studio import config, process, queue, run
from studio.home import PROJECT
from studio.run import Run, create
from studio.runs import claim
from tests.faults import fake_trainer
from tests.places import sshd

pytestmark = pytest.mark.skipif(not sshd.ABLE, reason="no sshd, ssh or rsync on this computer")


@pytest.fixture
def wire(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sshd.Wire]:
    folder = tmp_path / "ssh"
    folder.mkdir()
    with sshd.serving(folder) as wire:
        monkeypatch.setenv("STUDIO_SSH_CONFIG", str(folder / "ssh_config"))
        yield wire


def order(tmp_path: Path, model: Path, rows: Path, **training: object) -> dict:
    return {
        "name": "afar",
        "model": str(model),
        "data": {"train": str(rows), "max_length": 64},
        "method": {"name": "lora", "rank": 4},
        "training": {"batch_size": 4, "probe": False, "threads": 1, "samples": 0, **training},
        "place": {"kind": "ssh", "host": "there", "python": sys.executable, "folder": str(tmp_path / "there")},
    }


def faked(tmp_path: Path, model: Path, rows: Path, pause: float = 0.2, **training: object) -> dict:
    """The same order with a Python there whose trainer is the fake one, pause seconds a step."""
    environment = {"STUDIO_TRAINER": fake_trainer.__name__, "STUDIO_FAKE": json.dumps({"pause": pause})}
    words = [f"{key}={shlex.quote(value)}" for key, value in {**environment, "PYTHONPATH": str(PROJECT)}.items()]
    python = tmp_path / "python-there"
    python.write_text(f'#!/bin/sh\nexec env {" ".join(words)} {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    plain = order(tmp_path, model, rows, **training)
    return {**plain, "place": {**plain["place"], "python": str(python)}}


def check_result(one: Run, steps: int) -> None:
    """What the fake trainer learns in so many steps is here, whole."""
    assert (one.result / "model.bin").read_text() == fake_trainer.reference(steps)
    assert json.loads((one.result / "manifest.json").read_text()) == {"step": steps}


def until(one: Run, done, seconds: float = 400) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = queue.reconcile(one)
        if done(state):
            return state
        time.sleep(0.1)
    raise AssertionError(
        f"{one.state()}: {one.log.read_text()[-3000:] if one.log.exists() else ''} {one.events()[-5:]}"
    )


def over(state: str) -> bool:
    return state in ("finished", "stopped", "failed", "lost")


def test_the_result_is_the_same_bit_for_bit(
    wire: sshd.Wire, home: Path, tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    from studio.worker import train as worker

    there = order(tmp_path, tiny_model, tiny_data, max_steps=6)
    taken = claim.take_devices(1)  # what trains elsewhere needs no device here
    afar = queue.submit(config.build(there))
    assert until(afar, over) == "finished", run.summary(afar)
    for _, lock in taken:
        lock.release()
    here = create(config.build({key: value for key, value in there.items() if key != "place"}))
    assert worker.main(here) == 0
    assert (afar.result / "adapter_model.safetensors").read_bytes() == (
        here.result / "adapter_model.safetensors"
    ).read_bytes()
    mine, theirs = ([event for event in one.events() if event["kind"] in ("step", "eval")] for one in (here, afar))
    assert [event["loss"] for event in mine] == [event["loss"] for event in theirs]
    assert [event["attempt"] for event in theirs] == [1] * len(theirs)
    assert "there" in next(event for event in afar.events() if event.get("name") == "starting")["devices"]


def test_a_cut_wire_is_taken_up_and_a_stop_goes_through(
    wire: sshd.Wire, home: Path, tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    afar = queue.submit(config.build(faked(tmp_path, tiny_model, tiny_data, max_steps=100_000)))
    until(afar, lambda state: run.summary(afar)["step"] >= 3)
    wire.cut()
    time.sleep(1)
    before = run.summary(afar)["step"]
    until(afar, lambda state: any("connection" in event.get("text", "") for event in afar.events()), 60)
    assert afar.state() == "running"
    wire.mend()
    until(afar, lambda state: run.summary(afar)["step"] > before + 3)
    steps = [event["step"] for event in afar.events() if event["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))  # none lost while the wire was cut, none told twice
    said = [event.get("name") or event.get("text") for event in afar.events() if event["kind"] in ("phase", "note")]
    assert said.index("reconnecting") < said.index("The connection to there is back.")
    assert run.summary(afar)["phase"] in ("training", "saving", "evaluating")
    queue.stop(afar)
    assert until(afar, over) == "stopped"
    reached = run.summary(afar)["step"]
    check_result(afar, reached)
    queue.resume(afar, {"training": {"max_steps": reached + 5}}, why="resumed with a nearer goal")
    assert until(afar, over) == "finished", run.summary(afar)
    assert run.summary(afar)["step"] == reached + 5
    check_result(afar, reached + 5)


@pytest.mark.rare
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", ["cut", "refuse"])
def test_half_a_minute_without_a_wire_changes_nothing(
    way: str, wire: sshd.Wire, home: Path, tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    """The real trainer, whose wire is dead for thirty seconds in the middle of its run: there it trains on as one
    process, here it is watched on without a gap, and it ends with the very weights of a run that nothing disturbs.
    """
    from studio.worker import train as worker

    there = order(tmp_path, tiny_model, tiny_data, max_steps=100_000, schedule="constant", save_every=1000)
    afar = queue.submit(config.build(there))
    until(afar, lambda state: run.summary(afar)["step"] >= 20)
    (folder,) = (tmp_path / "there" / "home" / "runs").iterdir()
    remote = Run(folder)
    pids = [found.pid for found in holders(remote)]
    getattr(wire, way)()
    began, known, steps = time.monotonic(), run.summary(remote)["step"], []
    while time.monotonic() - began < 30:
        assert queue.reconcile(afar) == remote.state() == "running"
        steps.append(run.summary(remote)["step"])
        time.sleep(0.5)
    phase, seen, reached = run.summary(afar)["phase"], run.summary(afar)["step"], steps[-1]
    wire.mend()
    print(f"{way}: steps {known} to {reached} there meanwhile, {seen} known here, in phase {phase}")
    assert (phase, steps) == ("reconnecting", sorted(steps))
    assert seen < known + 20 < reached
    until(afar, lambda state: run.summary(afar)["step"] > reached)
    assert [found.pid for found in holders(remote)] == pids
    notes = [event["text"] for event in afar.events() if event["kind"] == "note" and "connection" in event["text"]]
    assert notes[-1] == "The connection to there is back."
    queue.stop(afar)
    assert until(afar, over) == "stopped"
    goal = run.summary(afar)["step"] + 5
    queue.resume(afar, {"training": {"max_steps": goal}}, why="resumed with a nearer goal")
    assert until(afar, over) == "finished", run.summary(afar)
    alone = {key: value for key, value in there.items() if key != "place"}
    here = create(config.build({**alone, "training": {**alone["training"], "max_steps": goal}}))
    assert worker.main(here) == 0
    mine, theirs = ([event["loss"] for event in one.events() if event["kind"] == "step"] for one in (here, afar))
    assert (len(mine), mine) == (goal, theirs)
    weights = [(one.result / "adapter_model.safetensors").read_bytes() for one in (here, afar)]
    assert weights[0] == weights[1]


def holders(one: Run) -> list[psutil.Process]:
    """The run's supervisor and its trainer."""
    return process.holders(one.lock) + process.holders(one.trainer_lock)


def test_a_killed_follower_finds_its_run_again(
    wire: sshd.Wire, home: Path, tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    afar = queue.submit(config.build(faked(tmp_path, tiny_model, tiny_data, max_steps=50)))
    until(afar, lambda state: run.summary(afar)["step"] >= 3)
    process.kill_all(lambda: holders(afar))
    assert until(afar, over) == "lost"
    queue.resume(afar)
    assert until(afar, over) == "finished", run.summary(afar)
    assert len(list((tmp_path / "there" / "home" / "runs").iterdir())) == 1
    steps = [event["step"] for event in run.current_events(afar.events()) if event["kind"] == "step"]
    assert steps == list(range(1, 51))
    check_result(afar, 50)


def test_who_is_not_let_in_is_told_why(
    wire: sshd.Wire, home: Path, tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssh" / "authorized_keys").write_text("")
    afar = queue.submit(config.build(order(tmp_path, tiny_model, tiny_data, max_steps=2)))
    assert until(afar, over) == "failed"
    told = run.summary(afar)
    assert "Permission denied" in told["cause"]
    assert "ssh there" in told["action"]
