"""What installs the studio: the packages of a Space as its builder resolves them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from studio.home import PROJECT

FRONT = yaml.safe_load((PROJECT / "README.md").read_text().split("---")[1])
UNREACHABLE = re.compile(r"Failed to fetch|dns error|error sending request|network|timed out|No solution.*no versions of gradio\b", re.IGNORECASE | re.DOTALL)


def _resolved(python: str, wanted: str, folder: Path) -> str:
    """The exact versions uv finds for these requirements; a skip where the registry cannot be reached."""
    file = folder / "wanted.in"
    file.write_text(wanted)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    done = subprocess.run([uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python, str(file)],
                          capture_output=True, text=True, timeout=120)
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"the registry cannot be reached: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("python", [FRONT["python_version"], "3.13"])
def test_a_space_can_be_built(python: str, tmp_path: Path) -> None:
    """The builder's own line: requirements.txt together with gradio[oauth,mcp] of the front matter's version, uvicorn, websockets and spaces."""
    ours = "".join(line for line in (PROJECT / "requirements.txt").read_text().splitlines(keepends=True) if not line.startswith("torch=="))
    found = _resolved(python, f"gradio[oauth,mcp]=={FRONT['sdk_version']}\nuvicorn\nwebsockets\nspaces\n{ours}", tmp_path)
    assert f"gradio=={FRONT['sdk_version']}\n" in found
    assert re.search(r"^mcp==", found, re.MULTILINE)
