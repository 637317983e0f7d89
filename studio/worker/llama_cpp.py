"""llama.cpp through its Python packages: answers and ids for an export's proof, and its quantizer.

xllamacpp has llama.cpp's server with its own Jinja; llama-cpp-python is the best known binding. Both are optional and
imported only when used.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import json
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import numpy

from studio import device
from studio.errors import ExportError
from studio.export.llama_cpp import MODULES, installed, quantizer_missing

Messages = list[dict[str, Any]]


class Reader(Protocol):
    """A GGUF file opened by llama.cpp."""

    name: str

    def ids(self, text: str) -> list[int]:
        """Token ids of a text; special tokens in it are parsed, none are added."""

    def answer(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        """Answer greedily through the file's template; returns {text, ids, prompt, finish}.

        finish is "stop" at an end token, which ids leaves out. ids and prompt are None where a package does not return
        them.
        """


def readers(file: Path, context: int) -> list[Reader]:
    """One reader per installed package. context: the most tokens that a question and its answer take together."""
    kinds: dict[str, Any] = {"xllamacpp": Server, "llama-cpp-python": Python}
    return [kinds[package](file, context) for package in installed()]


def _named(package: str) -> str:
    return f"llama.cpp ({package} {importlib.metadata.version(package)})"


class Server:
    """llama.cpp's server inside xllamacpp: the chat template is rendered by llama.cpp's own Jinja."""

    def __init__(self, file: Path, context: int):
        import xllamacpp

        self.name = _named("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx = context
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.warmup = False
        params.verbosity = 0
        params.use_jinja = True
        params.cpuparams.n_threads = device.cores()
        self.server = xllamacpp.Server(params)

    def ids(self, text: str) -> list[int]:
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(
            f"{self.server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())["tokens"]

    def answer(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        response = self.server.handle_chat_completions(
            {
                "messages": messages,
                "max_tokens": max_tokens,
                "temperature": 0,
                "repeat_penalty": 1.0,
                "cache_prompt": False,
                "return_tokens": True,
                "verbose": True,
                "reasoning_format": "none",
            }
        )
        if "choices" not in response:
            reason = response.get("message") or response
            raise ExportError(f"llama.cpp refuses a question: {reason}.", "", "model")
        inner = response["__verbose"]
        stopped = inner["stop_type"] == "eos"
        return {
            "text": response["choices"][0]["message"]["content"] or "",
            "ids": inner["tokens"][:-1] if stopped else inner["tokens"],
            "prompt": self.ids(inner["prompt"]),
            "finish": "stop" if stopped else "length",
        }


class Python:
    """llama-cpp-python's Llama."""

    def __init__(self, file: Path, context: int):
        from llama_cpp import Llama

        self.name = _named("llama-cpp-python")
        self.llama = Llama(model_path=str(file), n_ctx=context, n_threads=device.cores(), verbose=False)

    def ids(self, text: str) -> list[int]:
        return list(self.llama.tokenize(text.encode(), add_bos=False, special=True))

    def answer(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        response = self.llama.create_chat_completion(
            messages=messages, max_tokens=max_tokens, temperature=0.0, repeat_penalty=1.0
        )
        choice = response["choices"][0]
        text = choice["message"]["content"] or ""
        return {"text": text, "ids": None, "prompt": None, "finish": choice["finish_reason"]}


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
        raise ExportError(
            f"llama.cpp's quantizer wrote {written} bytes where {out.nbytes} were due.",
            "Take f16 or q8_0, and report this.",
            "--precision",
        )
    return out
