"""log.txt: bars collapsed, secrets hidden, bounded, and never a reason to fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from studio.runs import log
from studio.runs.log import Log, attempt_tail, follow, tail


def test_progress_bars_show_their_last_state(tmp_path: Path) -> None:
    with Log(tmp_path / "log.txt") as out:
        for percent in range(101):
            out.write(f"\r{percent}%|###".encode())
        out.write(b"\nnext\r\n")
    assert (tmp_path / "log.txt").read_text() == "100%|###\nnext\n"


def test_lines_torn_over_writes_come_out_whole(tmp_path: Path) -> None:
    with Log(tmp_path / "log.txt") as out:
        for byte in "größe\nzwei".encode():
            out.write(bytes([byte]))
    assert (tmp_path / "log.txt").read_text() == "größe\nzwei\n"


def test_a_bar_without_end_is_bounded(tmp_path: Path) -> None:
    with Log(tmp_path / "log.txt") as out:
        for number in range(20_000):
            out.write(b"\r%06d" % number * 10)
        assert len(out._line) <= log.LONGEST
    assert (tmp_path / "log.txt").read_text() == "019999\n"


def test_secrets(tmp_path: Path) -> None:
    with Log(tmp_path / "log.txt") as out:
        out.write(b"token hf_abcdefghijklmnopqrstuvwx\nand hf_short\nlast hf_abcdefghijklmnopqrstuvwx")
    assert (tmp_path / "log.txt").read_text() == "token hf_***\nand hf_short\nlast hf_***\n"


def test_the_middle_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "HEAD", 1000)
    monkeypatch.setattr(log, "TAIL", 2000)
    path = tmp_path / "log.txt"
    with Log(path) as out:
        for number in range(5000):
            out.write(b"line %d\n" % number)
    text = path.read_text()
    assert len(text) < 6000
    assert text.startswith("line 0\n")
    assert text.endswith("line 4999\n")
    assert "bytes left out" in text
    assert not list(tmp_path.glob(".*"))


def test_full_disk_loses_output_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "log.txt", os.write
    with Log(path) as out:
        out.write(b"one\n")
        monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        out.write(b"two\n")
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:2]))
        out.write(b"three\n")
        monkeypatch.undo()
        out.write(b"four\n")
    text = path.read_text()
    assert text.startswith("one\n")
    assert "bytes of output lost" in text
    assert text.endswith("four\n")


def test_tail_and_latest(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    assert tail(path) == attempt_tail(path) == ""
    path.write_text(f"{log.ATTEMPT}1, then\nold error\n{log.ATTEMPT}2, now\nnew\n")
    assert attempt_tail(path) == "new\n"
    assert tail(path, 9) == "new\n"


def test_follow(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    assert follow(path) == (b"", (0, 0))
    path.write_bytes(b"one\n")
    data, place = follow(path)
    path.write_bytes(b"one\ntwo\n")
    assert data == b"one\n"
    assert follow(path, place)[0] == b"two\n"
    other = tmp_path / "other"
    other.write_bytes(b"cut\n")
    other.rename(path)
    assert follow(path, place)[0] == b"cut\n"
