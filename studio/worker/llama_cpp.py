"""llama.cpp through its Python packages: answers and ids for an export's proof, and its quantizer.

A file is read in a process of its own (llama_cpp_child.py): llama.cpp ends its process where it finds a fault, and it
brings an OpenMP of its own, which in the process of torch may stand still. The packages are optional.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy

from studio import credentials
from studio.errors import ExportError
from studio.export.llama_cpp import MODULES, installed, quantizer_missing
from studio.home import PROJECT

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]] | None


class Reader:
    """A GGUF file opened by llama.cpp, in a process that ends with this object."""

    def __init__(self, package: str, file: Path, context: int):
        command = [
            sys.executable,
            "-m",
            "studio.worker.llama_cpp_child",
            package,
            str(Path(file).resolve()),
            str(context),
        ]
        self._package, self._file = package, file
        self._child = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=credentials.child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        weakref.finalize(self, _end, self._child)
        self.name: str = self._line()

    def ids(self, text: str) -> list[int]:
        """Token ids of a text; special tokens in it are parsed, none are added."""
        return self._ask("ids", text)

    def answer(self, messages: Messages, max_tokens: int, tools: Tools = None) -> dict[str, Any]:
        """Answer greedily through the file's template, as plain text; returns {text, ids, prompt, finish}.

        finish is "stop" at an end token, which ids leaves out. ids and prompt are None where a package does not return
        them. Raises ExportError where llama.cpp refuses the question, or has ended.
        """
        return self._ask("answer", messages, max_tokens, tools)

    def _ask(self, *words: Any) -> Any:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(words) + "\n")
            self._child.stdin.flush()
        except OSError:
            pass  # it has ended: the next line says how
        return self._line()

    def _line(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.endswith("\n"):
            code = self._child.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise ExportError(f"{self._package} ended while it read {Path(self._file).name} ({how}).", "", "model")
        message = json.loads(line)
        if "refused" in message:
            raise ExportError(f"{self._package} refuses a question: {message['refused']}.", "", "model")
        return message["result"]


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass  # unsent words of a question
    child.wait()


def readers(file: Path, context: int) -> list[Reader]:
    """One reader per installed package. context: the most tokens that a question and its answer take together."""
    return [Reader(package, file, context) for package in installed()]


@functools.lru_cache
def quantizer() -> Any:
    """ggml_quantize_chunk of an installed package's library. Raises ExportError where there is none."""
    for package in installed():
        folder = Path(importlib.util.find_spec(MODULES[package]).origin).parent
        for file in (*sorted(folder.glob("*.so")), *sorted(folder.rglob("*ggml-base*"))):
            try:
                function = ctypes.CDLL(str(file)).ggml_quantize_chunk
            except (OSError, AttributeError):
                continue
            pointer, integer = ctypes.c_void_p, ctypes.c_int64
            function.restype = ctypes.c_size_t
            function.argtypes = [ctypes.c_int, pointer, pointer, integer, integer, integer, pointer]
            return function
    raise quantizer_missing()


def quantized(rows: numpy.ndarray, kind: Any, importance: numpy.ndarray | None = None) -> numpy.ndarray:
    """Quantize float32 [rows, columns] to blocks of a GGML type, uint8 [rows, bytes]. importance: float32 [columns]."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = numpy.ascontiguousarray(rows, numpy.float32)
    out = numpy.empty((rows.shape[0], rows.shape[1] // block * size), numpy.uint8)
    if importance is not None:
        importance = numpy.ascontiguousarray(importance, numpy.float32)
    written = quantizer()(
        int(kind),
        rows.ctypes.data,
        out.ctypes.data,
        0,
        rows.shape[0],
        rows.shape[1],
        None if importance is None else importance.ctypes.data,
    )
    if written != out.nbytes:
        message = f"llama.cpp's quantizer wrote {written} bytes where {out.nbytes} were due."
        hint = "Take f16 or q8_0, and report this."
        raise ExportError(message, hint, "--precision")
    return out
