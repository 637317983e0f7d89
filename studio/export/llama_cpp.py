"""Find the installed llama.cpp packages without importing them. They quantize K-quants and prove GGUF files."""

from __future__ import annotations

import importlib.util

from studio.errors import ExportError

MODULES = {"xllamacpp": "xllamacpp", "llama-cpp-python": "llama_cpp"}  # package -> module


def installed() -> list[str]:
    """The installed packages."""
    return [package for package, module in MODULES.items() if importlib.util.find_spec(module)]


def quantizer_missing() -> ExportError:
    message = "This precision is written by llama.cpp's own quantizer, which is not installed."
    hint = "pip install xllamacpp, or take f16 or q8_0."
    return ExportError(message, hint, "--precision")
