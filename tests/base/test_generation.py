"""generation_config.json in the forms that makers give it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.base import generation
from studio.errors import ModelError


@pytest.mark.parametrize(
    ("eos", "ids"), [(2, [2]), ([2, 7], [2, 7]), (None, []), ([], []), ([2, None], [2]), ("2", []), (-1, [])]
)
def test_end_tokens_in_every_form(eos: Any, ids: list[int], tmp_path: Path) -> None:
    (tmp_path / generation.FILE).write_text(json.dumps({"eos_token_id": eos}))
    assert generation.end_ids(generation.settings(tmp_path)) == ids


@pytest.mark.parametrize("text", ["{broken", "[1, 2]", "null", ""])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    """Before the training, not at its end, where the result would be lost."""
    assert generation.settings(tmp_path) == {}
    (tmp_path / generation.FILE).write_text(text)
    with pytest.raises(ModelError, match=generation.FILE):
        generation.settings(tmp_path)
