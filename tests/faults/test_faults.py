"""The short form of python -m tests.faults --full: each kind of fault once, with the fake trainer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import kill_points, matrix, real, stage


@pytest.fixture(autouse=True)
def _clean(home: Path) -> Iterator[None]:
    yield
    stage.clear()


@pytest.mark.parametrize("point", kill_points.SHORT)
def test_kill_point(point: str) -> None:
    kill_points.die_at(point)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk() -> None:
    try:
        matrix.full_disk()
    except PermissionError:
        pytest.skip("this container may not mount")


def test_low_disk() -> None:
    matrix.low_disk()


def test_very_low_disk() -> None:
    matrix.very_low_disk()


def test_damaged_checkpoint() -> None:
    matrix.damaged_checkpoint("optimizer.pt", "missing")


def test_cut_diary(tmp_path: Path) -> None:
    run = matrix.finished_run()
    for cut in (*range(0, 60), *range(60, 201, 7)):
        matrix.cut_diary(cut, run, tmp_path / "copy")


@pytest.mark.parametrize("who", ["trainer", "supervisor"])
def test_standing_still(who: str) -> None:
    matrix.standing_still(who, 1.5)


def test_foreign_process() -> None:
    matrix.foreign_process()


def test_orphan() -> None:
    matrix.supervisor_without_death_signal()


def test_two_pages() -> None:
    matrix.two_pages()


def test_clock_step() -> None:
    matrix.clock_step(-7200)


def test_middle_ones_bad() -> None:
    matrix.middle_ones_bad()


@pytest.mark.parametrize(("phase", "how"), [("import", False), ("reading data", True), ("training", False), ("saving", False)])
def test_stop(phase: str, how: bool) -> None:
    matrix.stop_in(phase, how)


def test_real_trainer(tmp_path: Path) -> None:
    """One kill of the real trainer in the middle of a checkpoint: bit for bit the weights of a run that nothing disturbs."""
    with stage.surroundings(STUDIO_HOME=str(tmp_path)):
        wanted = real.reference()
    real.die_at("checkpoint.manifest#2", wanted)
