"""Ctrl-C while a program is still being imported ends it at once, in a word: nothing has begun that had to be ended."""

from __future__ import annotations

import os
import signal
from typing import Any

STATUS = 130  # of a program that Ctrl-C has ended


def begin() -> None:
    """Until `end`, Ctrl-C ends the process at once. Not where it is ignored, as under nohup."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(STATUS)
