"""What a terminal is given to show of other people's texts, and what a program that reads the output gets."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from studio import run, terminal
from studio.__main__ import main
from tests.ui.fakes import FakeRun

EVIL = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\u202ee\bf\x1b[8mg"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def evil_run(home: Path) -> run.Run:
    FakeRun("2026-11-22-1200-one").start(alive=False)
    found = run.find("last")
    found.label(name=EVIL, note=EVIL)
    return found


@pytest.mark.parametrize("words", [["runs"], ["show", "last"], ["show", f"nothing{EVIL}"], ["inspect", f"{EVIL}.json"]])
def test_a_name_moves_nothing_on_the_screen(
    words: list[str], evil_run: run.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = Screen(), Screen()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    main(words)
    text = out.getvalue() + err.getvalue()
    assert text
    assert not set(text) & set("\x1b\x07\x08\x9b\u202e")


def test_a_program_gets_the_text_as_it_is(evil_run: run.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["note"] == EVIL


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        (["show"], "The following arguments are required: RUN", "usage: python -m studio show"),
        (["extend", "last", "abc"], "Argument epochs: invalid float value: 'abc'", "usage: python -m studio extend"),
        (["trian", "sample"], "There is no command 'trian'.", "Did you mean train?"),
    ],
)
def test_a_command_line_that_no_command_takes_is_refused_as_an_order_is(
    line: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == message
    assert error["hint"].startswith(hint)
    assert main(line) == 2
    assert capsys.readouterr().err.startswith(f"{message}\n{hint}")


def test_an_empty_queue_is_no_home_without_runs(evil_run: run.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue"]) == 0
    assert capsys.readouterr().out == "Nothing waits.\n"


def test_the_studios_own_colours_stay() -> None:
    screen = Screen()
    own = "".join(f"{colour}text{terminal.END}\t中\r\n" for colour in (terminal.TRAINED, terminal.CUT, terminal.DIM))
    terminal.shown(screen).write(own)
    assert screen.getvalue() == own
    piped = io.StringIO()
    assert terminal.shown(piped) is piped


def test_one_row_is_no_rows(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "one.json"
    file.write_text(json.dumps([{"instruction": "Say hi", "output": "Hello there."}]))
    assert main(["inspect", str(file)]) == 0
    assert "json: 1 row, 0 refused" in capsys.readouterr().out
