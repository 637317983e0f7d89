"""llama.cpp is asked in a process of its own: it may end that process, and its threads are not those of torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from studio.errors import ExportError
from studio.export.llama_cpp import installed
from studio.home import PROJECT
from studio.worker.llama_cpp import readers

pytestmark = pytest.mark.skipif(not installed(), reason="no llama.cpp is installed")


def test_a_file_it_cannot_open_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + b"\x03\0\0\0" + b"\xff" * 64)
    with pytest.raises(ExportError, match=r"\S+ ended while it read broken.gguf \((exit code|signal) \d+\)"):
        readers(file, 64)
    assert not [child for child in psutil.Process().children() if "llama_cpp_child" in " ".join(child.cmdline())]


@pytest.mark.parametrize("module", ["llama_cpp", "llama_cpp_child"])
def test_torch_and_llama_cpp_do_not_meet(module: str) -> None:
    code = (
        f"import sys, studio.worker.{module}; print(sorted({{'torch', 'xllamacpp', 'llama_cpp'}} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
