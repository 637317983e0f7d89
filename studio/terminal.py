"""Text of others on a terminal: names, rows and answers may hold sequences that a terminal carries out."""

from __future__ import annotations

import re
from typing import Any

# what the studio itself writes
TRAINED = "\x1b[30;42m"
CUT = "\x1b[31;9m"
DIM = "\x1b[2m"
END = "\x1b[0m"
# control characters but for line ends, tabs and the above, and marks that turn the direction of what follows
COMMANDS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\x1b(?!\[(?:30;42|31;9|2|0)m)"
)


class Shown:
    """A terminal's stream that shows such characters as � and carries nothing out."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(COMMANDS.sub("\ufffd", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def shown(stream: Any) -> Any:
    """The stream; where people look at it, so that it only shows."""
    return Shown(stream) if stream.isatty() else stream
