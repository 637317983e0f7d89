"""Nothing on the page moves unless something has changed: a style that animates for ever makes the browser draw sixty
times a second.
"""

from __future__ import annotations

import re

import pytest

from studio.ui import assets


@pytest.mark.parametrize("file", assets.styles(), ids=lambda path: path.name)
def test_no_style_moves_for_ever_or_with_every_new_number(file: str) -> None:
    text = assets.read(file.name)
    assert not re.search(r"\binfinite\b", text)
    assert "@keyframes" not in text
    for moved in re.findall(r"transition:\s*([^;}]*)", text):
        assert not re.search(r"\b(all|width|height|left|top)\b", moved), moved
