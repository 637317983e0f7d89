"""Regular expressions that people write: compiled without using up the memory.

The `regex` library writes counted repeats out when it compiles: `((a{999}){999}){999}` takes all memory there is. Its
searches take a limit of time; compiling takes none, so a pattern is measured first.
"""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import regex
from annotated_types import MaxLen
from pydantic import AfterValidator

SECONDS = 0.2  # of the processor for one search in one text
SIZE = 250_000  # parts that a pattern may have when its counted repeats are written out; about 80 MB
BRACES = re.compile(r"\{([^{}]*)\}?")
VERBOSE = re.compile(r"\(\?\w*x")
LONG, KINDS = 1500, "a1 .\n中"  # characters of a text that a pattern is tried on, and those that such texts are made of


def compile_pattern(pattern: str, flags: int = 0) -> Any:
    """The compiled pattern. Raises ValueError, which says why, for what is no pattern, or one that grows too large."""
    if VERBOSE.search(pattern) and "#" in pattern:
        raise ValueError("comments (?x) are not allowed in it")
    if written_out(pattern) > SIZE:
        raise ValueError(f"its repeats make it longer than {SIZE:,} parts")
    try:
        return regex.compile(pattern, flags)
    except (regex.error, RecursionError, OverflowError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(reason) from None


def checked(pattern: str) -> str:
    """The pattern. Raises ValueError where it cannot be compiled."""
    try:
        compile_pattern(pattern)
    except ValueError as error:
        raise ValueError(f"this pattern cannot be read: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(checked), MaxLen(2000)]


def written_out(pattern: str) -> int:
    """The most parts that a pattern has when each counted repeat is written out.

    Every repeat is taken to repeat all that stands before it, so that no grouping has to be understood.
    """
    size = end = 0
    for braces in BRACES.finditer(pattern):
        counts = ["".join(filter(str.isdecimal, part)) for part in braces[1].split(",")]
        size = (size + braces.start() - end) * max(1, *(int(count or 0) for count in counts))
        end = braces.end()
    return size + len(pattern) - end


def slow_text(pattern: str) -> str:
    """The beginning of a text in which the search for a pattern takes longer than SECONDS; "" where none is known.

    Where all these searches together take five times as long, the last one's text.

    Tried are long texts of one character, or of words, that end in another one: a repeat within a repeat, as in
    (a+)+$, divides them in more ways than can be looked at.
    """
    compiled = compile_pattern(pattern)
    characters = dict.fromkeys([*KINDS, *filter(str.isalnum, pattern)])
    left = 5 * SECONDS
    for text in ("word " * (LONG // 5), *(character * LONG for character in characters)):
        began = time.thread_time()
        try:
            compiled.search(f"{text}\0", timeout=SECONDS)
        except TimeoutError:
            return text[:12]
        left -= time.thread_time() - began
        if left < 0:
            return text[:12]
    return ""
