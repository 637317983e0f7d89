"""The short form of python -m tests.faults --full: each kind of fault once, with the fake trainer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults import disks, files, kill_points, output, processes, real, stage, stops


@pytest.fixture(autouse=True)
def _clean(home: Path) -> Iterator[None]:
    yield
    stage.clear()


@pytest.mark.parametrize("point", kill_points.SHORT)
def test_kill_point(point: str) -> None:
    kill_points.die_at(point)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize(
    "cell",
    [disks.full_disk, disks.full_at_the_result, partial(disks.read_only_home, disks.LOOKS[:2], disks.CHANGES[:1])],
    ids=["full", "full at the result", "read-only"],
)
def test_small_disk(cell: object) -> None:
    try:
        cell()
    except PermissionError:
        pytest.skip("this container may not mount")


@pytest.mark.parametrize(
    "cell",
    [
        disks.low_disk,
        disks.very_low_disk,
        files.diary_deleted,
        files.folder_moved,
        processes.foreign_process,
        processes.supervisor_without_death_signal,
        processes.two_pages,
        processes.two_supervisors,
        processes.extended_after_a_step_back,
        processes.middle_ones_bad,
        processes.died_in_the_dark,
        stops.result_killed_while_stopping,
        stops.ctrl_c,
        stops.hang_up,
        output.endless_line,
    ],
)
def test_cell(cell: object) -> None:
    cell()


def test_odd_home() -> None:
    disks.odd_home(disks.ODD[0] + disks.ODD[1])


def test_order_deleted() -> None:
    files.order_while_running("deleted")


def test_damaged_checkpoint() -> None:
    files.damaged_checkpoint("optimizer.pt", "missing")


def test_cut_diary(tmp_path: Path) -> None:
    run = stage.finished_run()
    for cut in (*range(0, 60, 2), *range(60, 201, 7)):
        files.cut_diary(cut, run, tmp_path / "copy")


def test_standing_still() -> None:
    processes.standing_still("supervisor", 1.0)


@pytest.mark.parametrize(
    ("phase", "how"), [("import", False), ("reading data", True), ("training", False), ("saving", False)]
)
def test_stop(phase: str, how: bool) -> None:
    stops.stop_in(phase, how)


def test_real_trainer() -> None:
    """One kill of the real trainer in the middle of a checkpoint: bit for bit the weights of a run that nothing
    disturbs.
    """
    real.die_at("checkpoint.manifest#2")
