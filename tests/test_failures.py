"""The terminal's door: what the world refuses is a sentence there too, whatever the command; a closed pipe and a
full disk end it quietly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio import errors, events, run
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
