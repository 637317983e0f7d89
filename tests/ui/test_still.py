"""Nothing on the page moves unless something has changed: a style that animates for ever makes the browser draw sixty
times a second.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studio.ui import assets


@pytest.mark.parametrize("file", assets.styles(), ids=lambda path: path.name)
def test_no_rule_sets_a_part_after_a_whole_with_a_variable(file: Path) -> None:
    """Gradio writes the rules anew from the browser's, which has no words for such a whole: it is lost."""
    text = re.sub(r"/\*.*?\*/", "", assets.read(file.name), flags=re.DOTALL)
    for rule in re.findall(r"[{};]([^{}]*)}", text):
        names = [line.partition(":")[0].strip() for line in rule.split(";")]
        for whole in re.findall(r"\b(border|padding|margin|background|font|flex|inset)\s*:[^;]*var\(", rule):
            parts = {name for name in names if name.startswith(f"{whole}-")}
            assert not parts - {"border-radius"}, rule


@pytest.mark.parametrize("file", assets.styles(), ids=lambda path: path.name)
def test_no_style_moves_for_ever_or_with_every_new_number(file: str) -> None:
    text = assets.read(file.name)
    assert not re.search(r"\binfinite\b", text)
    assert "@keyframes" not in text
    for moved in re.findall(r"transition:\s*([^;}]*)", text):
        assert not re.search(r"\b(all|width|height|left|top)\b", moved), moved
