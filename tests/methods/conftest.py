"""Tiny models of several architectures, made once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.methods import architectures


@pytest.fixture(scope="session")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """architecture("gpt2"): the folder of a tiny random GPT-2."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = architectures.write(tmp_path_factory.mktemp("architectures") / kind, kind)
        return made[kind]

    return folder
