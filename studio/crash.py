"""Named points at which a test has this process die as if its power were cut. Costs one comparison when unset.

STUDIO_CRASH_AT=NAME kills at the first pass of the point, NAME#3 at the third.
"""

from __future__ import annotations

import os
import signal

_AT, _, _NTH = os.environ.get("STUDIO_CRASH_AT", "").partition("#")
_left = [int(_NTH or 1)]


def here(name: str) -> bool:
    """Whether the process is to die at this point, now; for places that first want to leave a half behind."""
    if not _AT or name != _AT:
        return False
    _left[0] -= 1
    return _left[0] == 0


def point(name: str) -> None:
    """Die here by SIGKILL if so ordered: no handler, no finally, no flush."""
    if _AT and here(name):
        die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
