"""llama.cpp itself, where a wheel brings it: its answers and ids for an export's proof, and its quantizer.

xllamacpp brings llama.cpp's server with its own Jinja, llama-cpp-python is the best known binding. Both are optional; neither is imported
before it is asked for.
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
        """Tokens of a text, special ones in it understood, nothing put before or behind."""

    def answer(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        """{text, ids, prompt, finish}, greedily, through the template in the file; finish "stop": at a token that ends generation.

        ids: without that token; ids and prompt are None where a package does not tell them.
        """


def readers(file: Path, context: int) -> list[Reader]:
    """One reader for each package that is installed. context: tokens that a question and its answer take at most."""
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
        params.model.path, params.n_ctx, params.n_parallel, params.n_gpu_layers = str(file), context, 1, 0
        params.warmup, params.verbosity, params.use_jinja, params.cpuparams.n_threads = False, 0, True, device.cores()
        self.server = xllamacpp.Server(params)

    def ids(self, text: str) -> list[int]:
        asked = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(
            f"{self.server.listening_address}/tokenize", asked, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as found:
            return json.loads(found.read())["tokens"]

    def answer(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        told = self.server.handle_chat_completions(
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
        if "choices" not in told:
            raise ExportError(f"llama.cpp refuses a question: {told.get('message') or told}.", "", "model")
        inner = told["__verbose"]
        stopped = inner["stop_type"] == "eos"
        return {
            "text": told["choices"][0]["message"]["content"] or "",
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
        told = self.llama.create_chat_completion(
            messages=messages, max_tokens=max_tokens, temperature=0.0, repeat_penalty=1.0
        )["choices"][0]
        return {"text": told["message"]["content"] or "", "ids": None, "prompt": None, "finish": told["finish_reason"]}


@functools.lru_cache
def quantizer() -> Any:
    """ggml_quantize_chunk of an installed package's library. Raises ExportError where there is none."""
    for package in installed():
        place = Path(importlib.util.find_spec(MODULES[package]).origin).parent
        for file in (*sorted(place.glob("*.so")), *sorted(place.rglob("*ggml-base*"))):
            try:
                found = ctypes.CDLL(str(file)).ggml_quantize_chunk
            except (OSError, AttributeError):
                continue
            found.restype = ctypes.c_size_t
            found.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
            return found
    raise quantizer_missing()


def quantized(rows: numpy.ndarray, kind: Any, importance: numpy.ndarray | None = None) -> numpy.ndarray:
    """float32 [rows, columns] in blocks of a GGML type, uint8 [rows, bytes]. importance: float32 [columns], how much each column counts."""
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
