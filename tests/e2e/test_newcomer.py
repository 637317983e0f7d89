"""A newcomer's path through the page, from the own CSV file to the exported model, with nothing typed but its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import newcomer
from tests.browser import chromium_path

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]


@pytest.mark.rare
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("size", newcomer.SIZES)
@pytest.mark.parametrize("language", newcomer.LANGUAGES)
def test_own_rows_own_model_start_chat_export(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, size: str
) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path))
    locale, window = newcomer.LANGUAGES[language], newcomer.SIZES[size]
    assert newcomer.visit(chromium, tmp_path / "room", tmp_path, f"{size}-{language}", locale, window) == []
    assert (tmp_path / f"8-exported-{size}-{language}.png").is_file()
