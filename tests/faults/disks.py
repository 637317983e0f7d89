"""Disks that fill up, and homes in odd places."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio import queue
from studio.home import PROJECT, home
from studio.run import summary
from studio.runs import checkpoints
from tests.faults import stage


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """STUDIO_HOME on a tmpfs of that size. Raises PermissionError where this process may not mount."""
    place = home() / "disk"
    place.mkdir(exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True
    ).returncode:
        raise PermissionError("mount")
    try:
        with stage.surroundings(STUDIO_HOME=str(place)):
            yield place
            stage.clear()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(file: Path) -> None:
    """Take every free byte."""
    with open(file, "wb", buffering=0) as filled:
        for size in (65536, 4096, 1):
            try:
                while filled.write(b"x" * size):
                    pass
            except OSError:
                continue


NO_MARKS = {"STUDIO_DISK_LOW": "0", "STUDIO_DISK_VERY_LOW": "0"}


def full_disk() -> None:
    """The disk fills in the middle of a run: no checkpoint is lost, the end line gets in, freed and resumed it
    finishes.
    """
    with (
        small_disk("4m") as place,
        stage.surroundings(**stage.fake(pause=0.1, weight=500_000, result=500_000), **NO_MARKS),
    ):
        run = queue.submit(stage.order())
        stage.until(lambda: checkpoints.newest(run.checkpoints), "the first checkpoint")
        filler = place / "filler"
        fill(filler)
        stage.noticed(run, "failed", "The disk is full", "Free some space", "disk")
        assert checkpoints.newest(run.checkpoints), "the checkpoint before is still there"
        filler.unlink()
        stage.bring_home(run)
        assert summary(run)["saved"]
        assert checkpoints.steps(run.checkpoints)[-1] == 12


def full_at_the_result() -> None:
    """The disk is full just when the result is written: no half of it stays, and a resume writes nothing but the
    result.
    """
    with small_disk("4m") as place, stage.surroundings(**stage.fake(pause=0.05, result=4_120_000), **NO_MARKS):
        (place / "filler").write_bytes(b"x" * 100_000)
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run)[-1:] == [12], "the last step")
        stage.noticed(run, "failed", "The disk is full", "Free some space", "disk")
        assert not summary(run)["saved"]
        (place / "filler").unlink()
        with stage.surroundings(**stage.fake()):
            stage.bring_home(run)
        stage.check_fake(run)
        assert [event["from_step"] for event in run.events() if event.get("from_step")] == [12], (
            "no step was trained again"
        )


def low_disk() -> None:
    """Below the low mark no checkpoint is made, and that is said; the run goes on."""
    with stage.surroundings(STUDIO_DISK_LOW=str(10**18)):
        run = stage.finished_run()
    stage.noticed(run, "finished")
    assert not checkpoints.steps(run.checkpoints)
    assert any(event["kind"] == "note" and "free" in event["text"] for event in run.events())
    stage.check_fake(run)


def very_low_disk() -> None:
    """Below the very low mark the run is stopped cleanly, with the cause; freed and resumed it finishes."""
    with stage.surroundings(**stage.fake(pause=0.1), STUDIO_DISK_VERY_LOW=str(10**18)):
        run = queue.submit(stage.order())
        stage.noticed(run, "stopped", "disk is almost full", "Free some space", "disk")
    with stage.surroundings(**stage.fake()):
        stage.bring_home(run)
    stage.check_fake(run)


# -- homes


def odd_home(name: str) -> None:
    """A home whose path has spaces, other scripts, quotes, or is very long."""
    place = home() / name
    with stage.surroundings(STUDIO_HOME=str(place)):
        run = stage.finished_run()
        stage.noticed(run, "finished")
        stage.check_fake(run)
        assert str(run.folder).startswith(str(place))
        told = terminal("show", "last", "--json")
        assert told.returncode == 0, told.stderr


ODD = ("with spaces 'and' \"quotes\"; $(touch x)", "微调 工作室 ö", "/".join(["long" * 20] * 12))


LOOKS = (("runs",), ("show", "last"), ("log", "last"), ("compare", "last", "last"), ("queue",))
CHANGES = (
    ("train", "sample", "--detach"),
    ("resume", "last", "--set", "training.epochs=4"),
    ("label", "last", "--note", "x"),
    ("delete", "last"),
)


def read_only_home(looks: tuple[tuple[str, ...], ...] = LOOKS, changes: tuple[tuple[str, ...], ...] = CHANGES) -> None:
    """Runs on a disk that may only be read can be looked at; what would write is refused in words."""
    with small_disk("8m") as place, stage.surroundings(**NO_MARKS):
        run = stage.finished_run()
        # The run is said to be over a moment before its supervisor closes its last file.
        remount = ["mount", "-o", "remount,ro", str(place)]
        stage.until(lambda: not subprocess.run(remount, capture_output=True).returncode, "nobody writes on the disk")
        for words in looks:
            told = terminal(*words)
            assert told.returncode == 0, (words, told.stderr)
            assert words != ("runs",) or run.id in told.stdout
        for words in changes:
            told = terminal(*words)
            assert (told.returncode, "Traceback" in told.stderr) == (2, False), (words, told.stderr)
            assert "may only be read" in told.stderr, told.stderr
        assert run.state() == "finished"
        stage.noticed(run, "finished")


def terminal(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "studio", *words], cwd=PROJECT, capture_output=True, text=True, env=dict(os.environ)
    )
