"""Names that are safe, files that are whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.home import home as studio_home
from studio.home import inside, room, slug, write_whole


@pytest.mark.parametrize(("text", "name"), [
    ("My first run", "My-first-run"), ("a/b\\c", "a-b-c"), ("..", "run"), ("", "run"), ("../../etc/passwd", "etc-passwd"), ("C:\\x", "C-x"),
    ("-rf", "rf"), ("名字 一", "名字-一"), ("x\ny", "x-y"), ("😀", "run"), ("a..b", "a.b"), (".hidden", "hidden"), ("x" * 300, "x" * 64)])
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
    assert room("runs").is_dir()


def test_write_whole_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_whole(file, "old")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file], "no temporary file is left"
