"""How people install the studio: a Space's packages as its builder resolves them, the wheel outside the checkout."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

import studio
from studio.home import PROJECT
from tests.browser import free_port

FRONT = yaml.safe_load((PROJECT / "README.md").read_text().split("---")[1])
UNREACHABLE = re.compile(
    r"Failed to fetch|dns error|error sending request|network|timed out|No solution.*no versions of gradio\b",
    re.IGNORECASE | re.DOTALL,
)


def _resolved(python: str, wanted: str, folder: Path) -> str:
    """The exact versions uv finds for these requirements; a skip where the registry cannot be reached."""
    file = folder / "wanted.in"
    file.write_text(wanted)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    done = subprocess.run(
        [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python, str(file)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"the registry cannot be reached: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("python", [FRONT["python_version"], "3.13"])
def test_a_space_can_be_built(python: str, tmp_path: Path) -> None:
    """The builder's own line: requirements.txt together with gradio[oauth,mcp] of the front matter's version, uvicorn,
    websockets and spaces.
    """
    ours = "".join(
        line
        for line in (PROJECT / "requirements.txt").read_text().splitlines(keepends=True)
        if not line.startswith("torch==")
    )
    found = _resolved(
        python, f"gradio[oauth,mcp]=={FRONT['sdk_version']}\nuvicorn\nwebsockets\nspaces\n{ours}", tmp_path
    )
    assert f"gradio=={FRONT['sdk_version']}\n" in found
    assert re.search(r"^mcp==", found, re.MULTILINE)


def test_extras_resolve(tmp_path: Path) -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"cuda", "trackers", "eval"} <= extras.keys()
    ours = (PROJECT / "requirements.txt").read_text()
    assert _resolved("3.11", "\n".join([ours, *(line for lines in extras.values() for line in lines)]), tmp_path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel in it, and nothing of the checkout; the libraries are those of
    this environment.
    """
    room = tmp_path_factory.mktemp("wheel")
    for name in ("studio", "templates"):
        shutil.copytree(PROJECT / name, room / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(PROJECT / name, room / "source")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", room, room / "source"]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = room.glob("*.whl")
    shutil.rmtree(room / "source")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", room / "venv"], check=True, timeout=120)
    (packages,) = (room / "venv").glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            room / "venv" / "bin" / "python",
            "install",
            "-q",
            "--no-deps",
            wheel,
        ],
        check=True,
        timeout=300,
    )
    return room / "venv" / "bin"


def test_the_wheel_trains_outside_the_checkout(installed: Path, tmp_path: Path, tiny_model: Path) -> None:
    """Relative paths in the order mean the caller's folder; templates, the sample and the version are in the wheel."""
    shutil.copytree(tiny_model, tmp_path / "models" / "tiny")
    (tmp_path / "rows.json").write_text(
        json.dumps([{"instruction": f"Say {n}.", "output": f"It is {n}."} for n in range(12)])
    )
    (tmp_path / "order.yaml").write_text(
        "model: models/tiny\ndata: {train: rows.json, eval: 0, max_length: 400, template: alpaca}\ntraining: "
        "{max_steps: 2}\n"
    )

    def said(*words: str) -> Any:
        done = subprocess.run(
            [installed / "fine-tuning-studio", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "STUDIO_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("--version").strip() == studio.__version__
    assert {"alpaca", "chatml"} <= {one["name"] for one in json.loads(said("templates", "--json"))}
    assert json.loads(said("train", "order.yaml", "--json"))["state"] == "finished"
    sample = json.loads(said("inspect", "sample", "--model", "models/tiny", "--json"))
    rows = json.loads((PROJECT / "studio" / "samples" / "three_lines.json").read_text())
    assert (sample["rows"], sample["refused"]) == (len(rows), 0)


def test_the_wheel_serves_the_page(installed: Path, tmp_path: Path) -> None:
    port = free_port()
    serving = subprocess.Popen(
        [installed / "fine-tuning-studio", "--port", str(port), "--no-token", "--home", tmp_path / "home"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and serving.poll() is None:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer,
            ):
                assert "Fine-Tuning Studio" in answer.read().decode()
                return
            time.sleep(0.3)
        pytest.fail("the page did not come")
    finally:
        serving.terminate()
        serving.wait(30)
