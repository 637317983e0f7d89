"""The terminal's door: what the world refuses is a sentence there too, whatever the command; a closed pipe and a
full disk end it quietly.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from studio import data, errors, events, page, run
from studio.__main__ import main
from studio.config import build
from studio.home import PROJECT
from tests.faults.refusing import REFUSALS, refusing


@pytest.mark.parametrize("name", REFUSALS)
def test_every_command_says_what_the_system_refuses(
    name: str,
    home: Path,
    tiny_model: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = {"model": str(tiny_model), "data": {"train": str(tiny_data)}, "method": {"name": "lora"}}
    one = run.create(build(plain))
    one.append("phase", name="starting", attempt=1)
    one.append("end", state="stopped", attempt=1)
    order = home / "order.yaml"
    order.write_text(json.dumps(plain))
    copied = home / "rows.json"
    copied.write_bytes(tiny_data.read_bytes())
    refusing(home, monkeypatch)(name)
    said = []
    for command in (
        ["runs"],
        ["show", one.id],
        ["log", one.id],
        ["queue"],
        ["resume", one.id],
        ["stop", one.id],
        ["delete", one.id],
        ["train", str(order)],
        ["estimate", str(order)],
        ["inspect", str(copied)],
        ["preview", str(copied), "--row", "1"],
        ["report", one.id, str(home / "out.html")],
        ["export", one.id, str(home / "out.zip"), "--to", "adapter"],
        ["merge", one.id, str(home / "merged")],
        ["eval", one.id],
        ["compare", one.id, one.id],
        ["chat", one.id, "--prompt", "Hi"],
        ["devices"],
        ["methods"],
        ["templates"],
        ["formats"],
        ["presets"],
    ):
        status = main([*command, "--json"])
        told = json.loads(capsys.readouterr().out)
        assert status in (0, 1, 2), command
        if status == 2:
            assert told["error"]["message"], command
            said.append(told["error"]["message"])
    assert any(REFUSALS[name] in text for text in said), said


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (RecursionError(), "nested too deeply"),
        (
            ValueError("Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits"),
            "too large",
        ),
        (TimeoutError("x"), "too long"),
        (MemoryError(), "memory"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), "characters"),
    ],
)
def test_what_breaks_readers_has_its_sentence(error: BaseException, part: str) -> None:
    told = errors.as_studio_error(error)
    assert told is not None
    assert part in told.message
    assert told.hint


def test_a_mistake_of_ours_is_none_of_the_worlds() -> None:
    assert errors.as_studio_error(KeyError("x")) is None
    assert "KeyError: 'x'" in errors.internal_error(KeyError("x")).message


@pytest.mark.parametrize(("target", "status"), [("closed", 0), ("/dev/full", 2)])
def test_output_that_nobody_takes(home: Path, target: str, status: int) -> None:
    read, write = os.pipe()
    os.close(read)
    output = write if target == "closed" else os.open(target, os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-m", "studio", "methods", "--json"],
        cwd=PROJECT,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert ("The disk is full" in done.stderr) == (target == "/dev/full")


def test_a_path_of_three_hundred_letters(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "x" * 300 + ".json", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"]
    assert events.is_locked(home / "none") is False


def test_a_page_that_cannot_start_says_why(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("studio.process.set_timer_slack", lambda milliseconds: None)
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for options, words in (
            (["--home", str(tmp_path / "file")], "cannot be made: File exists"),
            (["--port", "99999"], "There is no port 99999"),
            (["--port", str(taken.getsockname()[1])], "Another program listens at this port already"),
            (["--host", "192.0.2.1"], "This computer has no such address"),
            (["--host", "no such host"], "no such host is no address of this computer"),
        ):
            with pytest.raises(SystemExit) as ended:
                page.main(options)
            assert ended.value.code == 2
            message, hint = capsys.readouterr().err.strip().splitlines()
            assert words in message
            assert hint


def test_a_page_or_command_in_a_folder_that_is_gone_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone() -> str:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, "getcwd", gone)
    assert main(["templates"]) == 2
    with pytest.raises(SystemExit):
        page.main([])
    said = capsys.readouterr().err.strip().splitlines()
    assert said == 2 * ["The folder that this was started in is not there any more.", said[1]]
    assert "cd ~" in said[1]


def test_output_that_was_closed_before_the_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["templates"]) == 0


def test_what_is_no_plain_file_is_not_said_to_be_missing(home: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nothing.jsonl")
    for name in ("pipe.jsonl", "loop.jsonl", "gone.jsonl", "/dev/zero"):
        with pytest.raises(errors.DataError, match="a pipe, a device, or a link that leads nowhere"):
            data.read(tmp_path / name)


def _run(tiny_model: Path, tiny_data: Path, name: str) -> run.Run:
    order = {"name": name, "model": str(tiny_model), "data": {"train": str(tiny_data)}, "method": {"name": "lora"}}
    created = run.create(build(order))
    created.append("end", state="stopped", attempt=1)
    return created


def test_runs_that_cannot_be_read_are_named_and_hide_no_other(
    home: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound, folder, looped, closed = (_run(tiny_model, tiny_data, name) for name in ("sound", "dir", "loop", "closed"))
    for one in (folder, looped):
        one.events_file.unlink()
    folder.events_file.mkdir()
    looped.events_file.symlink_to(looped.events_file)
    access = os.access  # the tests may run as root, to whom everything is open
    monkeypatch.setattr(
        os, "access", lambda path, mode: closed.folder not in (path, Path(path).parent) and access(path, mode)
    )
    assert main(["runs", "--json"]) == 0
    printed = capsys.readouterr()
    assert [row["id"] for row in json.loads(printed.out)] == [sound.id]
    for one in (folder, looped, closed):
        assert f"The run {one.id} cannot be read" in printed.err
    assert main(["queue", "--json"]) == 0
    assert main(["show", sound.id]) == 0
    assert main(["show", closed.id]) == 2
    assert "permissions" in capsys.readouterr().err


def test_the_order_of_another_version_is_said_to_be_one(
    home: Path, tiny_model: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = _run(tiny_model, tiny_data, "newer")
    with open(newer.folder / "config.yaml", "a") as file:
        file.write("hologram: 1\n")
    assert main(["resume", newer.id]) == 2
    said = capsys.readouterr().err
    assert "Unknown key hologram" in said
    assert "Another version of the studio" in said


# -- words without Python in them

SYSTEM = frozenset(
    [
        "OSError",
        "Exception",
        "BaseException",
        "FileNotFoundError",
        "PermissionError",
        "BrokenPipeError",
        "TimeoutError",
        "TimeoutExpired",
        "KeyError",
        "IndexError",
        "BadZipFile",
        "DECOMPRESSION_ERRORS",
        "EOFError",
    ]
)


def raw_words() -> list[str]:
    """Where a sentence repeats an error of the system or of Python as Python writes it: [Errno 2], a KeyError's quotes.

    Python's name of an error alone is left to logs, to bugs of ours, and to the programs of the user's own.
    """
    found = []
    for file in sorted((PROJECT / "studio").rglob("*.py")):
        for handler in ast.walk(ast.parse(file.read_text())):
            if not isinstance(handler, ast.ExceptHandler) or not handler.name or handler.type is None:
                continue
            caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
            caught |= {node.attr for node in ast.walk(handler.type) if isinstance(node, ast.Attribute)}
            if caught & SYSTEM:
                found += [
                    f"{file.relative_to(PROJECT)}:{node.lineno}"
                    for node in ast.walk(handler)
                    if isinstance(node, ast.FormattedValue)
                    and ast.unparse(node.value) in (handler.name, f"str({handler.name})", f"repr({handler.name})")
                ]
    return found


def test_no_sentence_repeats_an_error_as_python_writes_it() -> None:
    others = ("queue.py", "attempt.py")  # lines of the log, and a bug of ours
    assert [place for place in raw_words() if not place.partition(":")[0].endswith(others)] == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), "No such file or directory"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (KeyError("labels"), "labels is missing"),
        (BrokenPipeError(), "Broken Pipe Error"),
        (ValueError("Two lines.\nof words"), "Two lines"),
    ],
)
def test_a_reason_in_words(error: Exception, words: str) -> None:
    assert errors.reason_of(error) == words


def test_a_sentence_begins_with_a_capital_where_no_file_is_known() -> None:
    told = errors.as_studio_error(OSError(errno.EFBIG, "File too large"))
    assert told is not None
    assert told.message.startswith("A file would be larger")


def test_a_full_folder_of_temporary_files_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/full/none"])
    monkeypatch.setattr("studio.commands.templates.formats", lambda *_: tempfile.gettempdir())
    assert main(["formats"]) == 2
    message, hint = capsys.readouterr().err.strip().splitlines()
    assert "temporary files" in message
    assert "TMPDIR" in hint
