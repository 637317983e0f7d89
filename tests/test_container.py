"""The Dockerfile and compose.yaml, as far as they can be held without an engine: their steps are done in a clean
folder.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from studio import page
from studio.home import PROJECT

DOCKERFILE = re.sub(r"\\\n", " ", (PROJECT / "Dockerfile").read_text())
STEPS = [line.partition(" ")[::2] for line in DOCKERFILE.splitlines() if line and not line.startswith(("#", " "))]
COMPOSE = yaml.safe_load((PROJECT / "compose.yaml").read_text())


def _copied(folder: Path) -> None:
    """What COPY brings, through .dockerignore."""
    sent = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for step, words in STEPS:
        if step == "COPY":
            *sources, target = [word for word in shlex.split(words) if not word.startswith("--")]
            for source in sources:
                assert source in sent, f".dockerignore keeps {source} out"
                if (PROJECT / source).is_dir():
                    shutil.copytree(PROJECT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(PROJECT / source, folder / target)


def test_what_is_copied_is_the_whole_program(tmp_path: Path) -> None:
    _copied(tmp_path)
    environment = {**os.environ, "STUDIO_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    told = subprocess.run(
        [sys.executable, "-m", "studio", "templates", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "chatml" in {one["name"] for one in json.loads(told.stdout)}, told.stderr
    command = json.loads(next(words for step, words in STEPS if step == "CMD"))
    shown = subprocess.run(
        [sys.executable, command[1], "--version"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stderr
    assert page.arguments(command[2:]).host == "0.0.0.0"


def test_the_linter_has_no_complaint() -> None:
    linted = subprocess.run(
        [Path(sys.executable).parent / "hadolint", PROJECT / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert linted.returncode == 0, linted.stdout


def test_nobody_is_root_and_what_is_kept_lies_on_the_volume() -> None:
    order = [step for step, _ in STEPS]
    assert dict(STEPS)["USER"] == "1000"
    assert order.index("USER") < order.index("COPY")
    assert dict(STEPS)["VOLUME"] == "/data"
    assert "STUDIO_HOME=/data" in dict(STEPS)["ENV"]
    assert {"HEALTHCHECK", "EXPOSE"} <= set(order)


def test_every_compose_service_builds_it_and_keeps_home() -> None:
    for service in COMPOSE["services"].values():
        assert service["volumes"] == ["home:/data"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), (
            "other computers are let in on purpose only"
        )
        wanted = service["build"].get("args", {}) if isinstance(service["build"], dict) else {}
        assert wanted.keys() <= {words.partition("=")[0] for step, words in STEPS if step == "ARG"}
    assert COMPOSE["services"]["studio-cpu"]["build"]["args"] == {"TORCH": "cpu"}
    assert "home" in COMPOSE["volumes"]
