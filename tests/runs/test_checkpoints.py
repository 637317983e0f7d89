"""Checkpoints are complete or absent; a resume takes the newest complete one and refuses another order."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest

from studio.config import build
from studio.errors import RunError
from studio.home import PROJECT
from studio.runs import checkpoints, results, sequence

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "inner/extra.txt")


def fill(folder: Path, step: int) -> None:
    (folder / "inner").mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr("data", os.urandom(100))
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (folder / "inner" / "extra.txt").write_text("extra")


def save(folder: Path, step: int, fingerprint: str = "rows") -> Path:
    with checkpoints.writing(folder, step) as temporary:
        fill(temporary / f"checkpoint-{step}", step)
    return checkpoints.complete(folder, step, fingerprint)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_complete(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    assert path == tmp_path / "checkpoint-5" == checkpoints.newest(tmp_path)
    assert checkpoints.faults(path) == []
    assert names(tmp_path) == ["checkpoint-5"]
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["step"] == 5
    assert set(manifest["files"]) == set(FILES)
    assert "torch" in manifest["versions"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "cut", "changed"])
def test_damage_is_seen_and_moved_aside(tmp_path: Path, name: str, how: str) -> None:
    save(tmp_path, 5)
    file = save(tmp_path, 10) / name
    data = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(data[: len(data) // 2] if how == "cut" else bytes([data[0] ^ 1]) + data[1:])
    assert any(name in fault for fault in checkpoints.faults(tmp_path / "checkpoint-10"))
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-5"
    told = checkpoints.tidy(tmp_path)
    assert len(told) == 1
    assert "step 10" in told[0]
    assert names(tmp_path) == ["broken", "checkpoint-5"]
    assert checkpoints.tidy(tmp_path) == []


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", '{"files": 3}', "{}", '{"files": {"optimizer.pt": null}}'])
def test_without_a_sound_manifest_it_is_none(tmp_path: Path, manifest: str | None) -> None:
    file = save(tmp_path, 5) / "manifest.json"
    file.unlink()
    if manifest is not None:
        file.write_text(manifest)
    assert checkpoints.faults(tmp_path / "checkpoint-5")
    assert checkpoints.newest(tmp_path) is None


@pytest.mark.parametrize("name", FILES[:-1])
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_checkpoint_written_badly_is_never_completed(tmp_path: Path, name: str, how: str) -> None:
    save(tmp_path, 5)
    with checkpoints.writing(tmp_path, 10) as temporary:
        inner = temporary / "checkpoint-10"
        fill(inner, 10)
        if how == "missing":
            (inner / name).unlink()
        else:
            os.truncate(inner / name, (inner / name).stat().st_size // 2)
    with pytest.raises((OSError, ValueError)):
        checkpoints.complete(tmp_path, 10, "rows")
    assert names(tmp_path) == ["checkpoint-5"]


def test_the_state_of_another_step(tmp_path: Path) -> None:
    with checkpoints.writing(tmp_path, 10) as temporary:
        fill(temporary / "checkpoint-10", 9)
    with pytest.raises(OSError, match="state of step 9"):
        checkpoints.complete(tmp_path, 10, "rows")


def test_a_failed_write_costs_nothing(tmp_path: Path) -> None:
    save(tmp_path, 5)

    def half() -> None:
        with checkpoints.writing(tmp_path, 10) as temporary:
            (temporary / "half").write_text("x")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        half()
    assert names(tmp_path) == ["checkpoint-5"]


def test_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 5)
    monkeypatch.setattr(checkpoints, "MIN_FREE", 10**18)
    with pytest.raises(OSError, match="free") as caught, checkpoints.writing(tmp_path, 10):
        pass
    assert checkpoints.disk_is_full(caught.value)
    assert names(tmp_path) == ["checkpoint-5"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_in_numpys_words() -> None:
    """GGUF files are written by it: their export ended with "requested and 0 written. Try again."."""
    with open("/dev/full", "wb") as full, pytest.raises(OSError, match="written") as caught:
        numpy.zeros(100_000).tofile(full)
    assert checkpoints.disk_is_full(caught.value)


def test_rotation(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save(tmp_path, step)
    checkpoints.rotate(tmp_path, 2, spare={5})
    assert checkpoints.steps(tmp_path) == [5, 15, 20]
    assert names(tmp_path) == ["checkpoint-15", "checkpoint-20", "checkpoint-5"]


def test_steps_are_numbers(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        save(tmp_path, step)
    (tmp_path / "checkpoint-x").mkdir()
    assert checkpoints.steps(tmp_path) == [9, 10, 100]
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-100"


POINTS = (
    "checkpoint.begun",
    "checkpoint.written",
    "whole.written",
    "checkpoint.manifest",
    "checkpoint.aside",
    "checkpoint.renamed",
    "checkpoint.rotated",
)


@pytest.mark.parametrize("point", POINTS)
def test_killed_while_saving_the_same_step_again(tmp_path: Path, point: str) -> None:
    """Wherever it dies, one whole checkpoint of step 10 stands after tidying, and nothing else."""
    save(tmp_path, 5)
    save(tmp_path, 10)
    code = (
        "from pathlib import Path; from tests.runs.test_checkpoints import save; from studio.runs import "
        f"checkpoints; folder = Path({str(tmp_path)!r})\n"
        "save(folder, 10); checkpoints.rotate(folder, 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env={**os.environ, "STUDIO_CRASH_AT": point})
    assert done.returncode == -signal.SIGKILL
    assert checkpoints.tidy(tmp_path) == []
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-10"
    assert set(names(tmp_path)) <= {"checkpoint-5", "checkpoint-10"}


def test_replacing_a_result(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("one", "two"):
        with results.replacing(target) as folder:
            (folder / "weights").write_text(text)
        assert (target / "weights").read_text() == text
    with pytest.raises(ValueError, match="no"), results.replacing(target) as folder:
        raise ValueError("no")
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("point", ["result.written", "result.aside", "result.renamed"])
def test_killed_while_replacing(tmp_path: Path, point: str) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    code = (
        "from pathlib import Path; from studio.runs import results\nwith "
        f"results.replacing(Path({str(target)!r})) as folder:\n"
        "    (folder / 'weights').write_text('new')"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT, env={**os.environ, "STUDIO_CRASH_AT": point}
        ).returncode
        == -signal.SIGKILL
    )
    results.tidy_result(target)
    assert (target / "weights").read_text() == ("new" if point == "result.renamed" else "old")
    assert names(tmp_path) == ["model"]


# -- which order may go on


ORDER = {"data": {"train": "rows.json"}, "training": {"batch_size": 4, "accumulation": 2}}


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"epochs": 9}},
        {"training": {"learning_rate": 1e-5, "schedule": "linear"}},
        {"training": {"batch_size": 2, "accumulation": 4}},
        {"training": {"save_every": 3, "log_every": 2}},
        {"training": {"checkpointing": True}},
        {"training": {"accumulation": "auto"}},
    ],
)
def test_free_to_change(tmp_path: Path, changes: dict) -> None:
    order = build(ORDER)
    sequence.begin(tmp_path, order)
    save(tmp_path, 5)
    sequence.begin(tmp_path, order.with_changes(**changes))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"training": {"batch_size": 2}}, "training.batch_size"),
        ({"training": {"seed": 1}}, "training.seed"),
        ({"data": {"max_length": 64}}, "data.max_length"),
        ({"data": {"train": "other.json"}}, "data.train"),
        ({"method": {"name": "lora", "rank": 2}}, "method.rank"),
        ({"method": {"name": "full"}}, "method.name"),
        ({"model": {"source": "other/model"}}, "model.source"),
    ],
)
def test_refused(tmp_path: Path, changes: dict, key: str) -> None:
    order = build(ORDER)
    sequence.begin(tmp_path, order)
    other = order.with_changes(**changes) if "method" not in changes else build({**ORDER, **changes})
    sequence.begin(tmp_path, other)  # nothing was saved yet: nothing to lose
    sequence.begin(tmp_path, order)
    save(tmp_path, 5)
    with pytest.raises(RunError) as caught:
        sequence.begin(tmp_path, other)
    assert key in caught.value.message
    assert "may change" in caught.value.hint


def test_what_auto_came_to_is_kept(tmp_path: Path) -> None:
    order = build({"data": {"train": "rows.json"}, "training": {"batch_size": 4, "accumulation": "auto"}})
    sequence.begin(tmp_path, order)
    save(tmp_path, 5)
    sequence.refuse_other_order(
        tmp_path, order.with_changes(training={"batch_size": 2, "accumulation": 4}), effective_batch=8
    )
    with pytest.raises(RunError, match="was 8 and is 4"):
        sequence.refuse_other_order(
            tmp_path, order.with_changes(training={"batch_size": 2, "accumulation": 2}), effective_batch=8
        )


def test_other_data(tmp_path: Path) -> None:
    path = save(tmp_path, 5, "rows")
    checkpoints.refuse_other_data(path, "rows")
    with pytest.raises(RunError, match="data file has changed"):
        checkpoints.refuse_other_data(path, "others")
