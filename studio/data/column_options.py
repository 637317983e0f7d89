"""Columns named by hand as options of a command, and found again in a hint."""

from __future__ import annotations

import re
import shlex

SAFE = re.compile(r"[\w=./\[\]-]*\w")  # what a shell takes as one word, up to where a sentence may end behind it
OPTION = re.compile(r"--column ('[^']*'|[\w=./\[\]-]*\w)")
OPTIONS = re.compile(rf"[:：]?(?:\s*{OPTION.pattern})+")


def options(mapping: dict[str, str]) -> str:
    """A mapping as options of a command: --column prompt=frage --column answer=antwort"""
    pairs = (f"{part}={column}" for part, column in mapping.items())
    return " ".join(f"--column {pair if SAFE.fullmatch(pair) else shlex.quote(pair)}" for pair in pairs)


def mapping_in(hint: str) -> dict[str, str] | None:
    """The mapping whose options a hint names; None where it names none, or leaves one to be filled in."""
    pairs = [pair.strip("'").partition("=") for pair in OPTION.findall(hint)]
    mapping = {part: column for part, _, column in pairs}
    return mapping if mapping and "NAME" not in mapping.values() else None


def without_options(hint: str) -> str:
    """A hint without the options of a command that stand in it, for a page that has a button in their place."""
    return OPTIONS.sub("", hint)
