"""Names that are safe, files that are whole."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.home import PROJECT, changing, inside, slug, subfolder, write_atomic
from studio.home import home as studio_home


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("My first run", "My-first-run"),
        ("a/b\\c", "a-b-c"),
        ("..", "run"),
        ("", "run"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\x", "C-x"),
        ("-rf", "rf"),
        ("名字 一", "名字-一"),
        ("x\ny", "x-y"),
        ("😀", "run"),
        ("a..b", "a.b"),
        (".hidden", "hidden"),
        ("x" * 300, "x" * 64),
    ],
)
def test_slug(text: str, name: str) -> None:
    assert slug(text) == name


def test_slug_fits_a_file_name_in_every_script() -> None:
    name = slug("𠀀" * 64)
    assert set(name) == {"𠀀"}
    assert len(name.encode()) <= 180


def test_a_home_that_cannot_be_made_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "home", tmp_path / ("x" * 300)):
        monkeypatch.setenv("STUDIO_HOME", str(place))
        with pytest.raises(StudioError, match="cannot be made"):
            studio_home()


@pytest.mark.parametrize("name", ["..", "/etc", "a/../../b", "", ".", "link/x"])
def test_inside_refuses(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(StudioError):
        inside(folder, name)


def test_inside(tmp_path: Path) -> None:
    assert inside(tmp_path, "a") == tmp_path.resolve() / "a"


def test_home_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "there"))
    assert studio_home() == (tmp_path / "there").resolve()
    assert subfolder("runs").is_dir()


def test_write_atomic_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_atomic(file, "old")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file], "no temporary file is left"


def test_many_threads_write_one_file_and_none_loses_its_write(tmp_path: Path) -> None:
    file, texts = tmp_path / "settings.json", [str(n) * 20_000 for n in range(8)]
    torn: list[int] = []

    def write(text: str) -> None:
        for _ in range(10):
            write_atomic(file, text)
            found = file.read_text()
            torn.extend([len(found)] if found not in texts else [])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, texts))
    assert not torn, "a reader sees one write, whole"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_what_is_read_changed_and_written_survives_threads_and_processes(tmp_path: Path) -> None:
    """Ten changes each of four threads and two processes."""
    file = tmp_path / "count.json"
    write_atomic(file, "0")
    change = (
        "import sys; from pathlib import Path; from studio.home import changing, write_atomic\nfile = "
        "Path(sys.argv[1])\n"
        "for _ in range(10):\n  with changing(file):\n    write_atomic(file, str(int(file.read_text()) + 1))"
    )
    others = [subprocess.Popen([sys.executable, "-c", change, str(file)], cwd=PROJECT) for _ in range(2)]

    def here(_: int) -> None:
        for _ in range(10):
            with changing(file):
                write_atomic(file, str(int(file.read_text()) + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(here, range(4)))
    assert [one.wait() for one in others] == [0, 0]
    assert file.read_text() == "60"
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "the lock leaves nothing behind"


def test_a_change_that_never_ends_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with (
        changing(tmp_path / "a"),
        pytest.raises(TimeoutError, match="another process"),
        changing(tmp_path / "b", wait=0.05),
    ):
        pass


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("x" * 255), "whole")
    assert (tmp_path / ("x" * 255)).read_text() == "whole"


def test_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    write_atomic(tmp_path / "key", "secret", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
