"""Ctrl-C while a program is still being imported ends it at once: there is nothing to clean up yet."""

from __future__ import annotations

import os
import signal
from typing import Any

STATUS = 130  # of a program that Ctrl-C has ended


def begin() -> None:
    """Make Ctrl-C end the process at once, until `end`. Nothing changes where it is ignored, as under nohup."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """Make Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(STATUS)
