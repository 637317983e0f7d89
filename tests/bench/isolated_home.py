"""A home of a bench's own: what it orders stands there alone, and goes with it. A bench that is killed leaves nothing
that a page would start.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.home import home

SHARED = ("models", "cache", "datasets", "uploads")  # what was fetched, converted or measured before is not made again


@contextmanager
def isolated_home() -> Iterator[Path]:
    """STUDIO_HOME is another folder inside, with what the user's home holds of models and data linked into it, and
    without its runs.
    """
    place, before, usual = Path(tempfile.mkdtemp(prefix="studio-bench-")), os.environ.get("STUDIO_HOME"), home()
    try:
        for name in SHARED:
            (usual / name).mkdir(exist_ok=True)
            (place / name).symlink_to((usual / name).resolve())
        os.environ["STUDIO_HOME"] = str(place)
        yield place
    finally:
        os.environ.pop("STUDIO_HOME", None)
        if before is not None:
            os.environ["STUDIO_HOME"] = before
        shutil.rmtree(place, ignore_errors=True)  # links are removed, not followed
