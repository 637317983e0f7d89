"""Named points at which tests kill this process, as a power cut would. Costs one comparison when unset.

STUDIO_CRASH_AT=NAME kills when the point is first reached, NAME#3 at the third time.
"""

from __future__ import annotations

import os
import signal

_AT, _, _NTH = os.environ.get("STUDIO_CRASH_AT", "").partition("#")
_left = [int(_NTH or 1)]


def is_due(name: str) -> bool:
    """Whether the process is to die at this point now; for callers that first leave a partial write behind."""
    if not _AT or name != _AT:
        return False
    _left[0] -= 1
    return _left[0] == 0


def point(name: str) -> None:
    """SIGKILL this process if STUDIO_CRASH_AT names this point."""
    if _AT and is_due(name):
        kill_self()


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
