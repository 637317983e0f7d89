"""`python: auto`: the environment that is made on another computer, over a real sshd with a bare home, and what is
said where that cannot work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from studio import config, environment, follow, program, queue, run
from studio.home import PROJECT
from studio.runs import remote
from tests.faults import fake_trainer
from tests.places import sshd
from tests.places.test_ssh import order, over, until

NOWHERE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_CONFIG_FILE": "/dev/null",
    "PIP_FIND_LINKS": "",
    "PIP_EXTRA_INDEX_URL": "",
}


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    """A wheel that brings the libraries of this environment, by reference."""
    file = tmp_path / "libraries-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("libraries.pth", f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
        packed.writestr("libraries-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: libraries\nVersion: 1.0\n")
        packed.writestr(
            "libraries-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        packed.writestr("libraries-1.0.dist-info/RECORD", "")
    return file


def shim(folder: Path, body: str) -> Path:
    """A python3 in a folder of its own: what `body` answers to, else this Python."""
    folder.mkdir()
    file = folder / "python3"
    file.write_text(f'#!/bin/sh\n{body}\nexec {sys.executable} "$@"\n')
    file.chmod(0o755)
    return folder


def made(folder: Path, requirements: str, **extra: str) -> tuple[int, list[str]]:
    """environment.py as it is called there: its exit status and lines."""
    (folder / "requirements.txt").write_text(requirements)
    done = subprocess.run(
        [sys.executable, environment.__file__, str(folder / "there" / "venv"), str(folder / "requirements.txt")],
        text=True,
        capture_output=True,
        env={**os.environ, **NOWHERE, **extra},
        timeout=300,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def trouble(lines: list[str]) -> dict[str, str]:
    return json.loads(lines[-1].removeprefix("@trouble "))


@pytest.mark.parametrize(
    ("body", "found", "advice"),
    [
        ('test "$1" = -c && { echo 3 9; exit 0; }', "is 3.9, and the studio needs 3.11", "apt install python3.11 "),
        ('case "$2" in *ensurepip*) exit 1;; esac', "cannot make a virtual environment", "-venv"),
    ],
)
def test_a_python_that_will_not_do(tmp_path: Path, body: str, found: str, advice: str) -> None:
    code, lines = made(tmp_path, "", PATH=f"{shim(tmp_path / 'bin', body)}")
    assert code == environment.TROUBLE
    assert found in trouble(lines)["message"]
    assert advice in trouble(lines)["hint"]
    assert "place.python" in trouble(lines)["hint"]
    assert not (tmp_path / "there" / "venv").exists()


def test_no_network(tmp_path: Path) -> None:
    code, lines = made(tmp_path, "some-package-of-the-studio")
    assert code == environment.TROUBLE
    assert "cannot reach the package index" in trouble(lines)["message"]
    assert "PIP_INDEX_URL" in trouble(lines)["hint"]
    assert not (tmp_path / "there" / "venv" / "installed.txt").exists()  # so that the next attempt does it again


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement torch==9\nERROR: No matching "
            "distribution found for torch==9",
            "torch==9",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk there is full",
        ),
        ("", "no reason"),
    ],
)
def test_why_packages_could_not_be_installed(said: str, found: str) -> None:
    assert found in environment.diagnose(said).message


def test_a_bare_home_is_set_up_with_progress_and_trains(
    home: Path,
    tmp_path: Path,
    tiny_model: Path,
    tiny_data: Path,
    libraries: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = tmp_path / "bare home"
    bare.mkdir()
    for name in ("ssh", "again"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("STUDIO_SSH_CONFIG", str(tmp_path / "ssh" / "ssh_config"))
    monkeypatch.setattr(program, "requirements", lambda: f"{libraries}\n")
    bin_there = shim(tmp_path / "bin", ":")
    there = {"HOME": f'"{bare}"', "PATH": f"{bin_there}:/usr/bin:/bin"}
    with sshd.serving(tmp_path / "ssh", **there):
        plain = {**order(tmp_path, tiny_model, tiny_data, max_steps=2), "place": "ssh:there"}
        first, second = (run.create(config.build(plain)) for _ in range(2))
        assert follow.main(str(first.folder)) == 0, run.summary(first)
        phases = [event["name"] for event in first.events() if event["kind"] == "phase"]
        assert phases.index("sending") < phases.index("setting up") < phases.index("training")
        assert "Installing the program's packages" in capsys.readouterr().out
    monkeypatch.setenv("STUDIO_SSH_CONFIG", str(tmp_path / "again" / "ssh_config"))
    without_torch = {"STUDIO_TRAINER": fake_trainer.__name__, "PYTHONPATH": str(PROJECT)}  # the first trained for real
    with sshd.serving(tmp_path / "again", **there, **without_torch):
        assert follow.main(str(second.folder)) == 0
        assert "setting up" not in [event.get("name") for event in second.events()]
        assert remote.remove(first) == ""
        assert [one.name for one in (bare / ".fine-tuning-studio" / "relay").iterdir()] == [second.id]
        assert len(list((bare / ".fine-tuning-studio" / "home" / "runs").iterdir())) == 1


def test_a_stop_does_not_wait_for_the_set_up(
    home: Path, tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssh").mkdir()
    monkeypatch.setenv("STUDIO_SSH_CONFIG", str(tmp_path / "ssh" / "ssh_config"))
    slow = shim(tmp_path / "bin", 'case "$*" in *"-m venv"*) sleep 300;; esac')
    with sshd.serving(tmp_path / "ssh", PATH=f"{slow}:/usr/bin:/bin"):
        plain = order(tmp_path, tiny_model, tiny_data, max_steps=2)
        plain["place"].pop("python")
        one = queue.submit(config.build(plain))
        until(one, lambda state: run.summary(one)["phase"] == "setting up")
        began = time.monotonic()
        queue.stop(one)
        assert until(one, over) == "stopped"
        assert time.monotonic() - began < 200  # the set-up would have slept for 300
