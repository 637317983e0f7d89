"""A system that refuses: for files under a folder, each call that a program makes ends in the errno it was told."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
REFUSALS = {
    "ENOSPC": "disk is full",
    "EROFS": "only be read",
    "EACCES": "permission denied",
    "ENAMETOOLONG": "too long",
    "EMFILE": "Too many files",
}


def refusing(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """refusing(…)("ENOSPC"): from then on the system refuses so; what only writes can meet spares readers."""
    told: dict[str, int] = {}

    def refuse(path: Any, writes: bool) -> None:
        number = told.get("errno")
        if number is None or not isinstance(path, str | os.PathLike) or not str(path).startswith(str(root)):
            return
        if writes or number not in (errno.ENOSPC, errno.EROFS):
            raise OSError(number, os.strerror(number), str(path))

    def guard(module: Any, name: str, writes: Callable[..., bool]) -> None:
        real = getattr(module, name)

        def guarded(path: Any = ".", *args: Any, **named: Any) -> Any:
            refuse(path, writes(*args, **named))
            return real(path, *args, **named)

        monkeypatch.setattr(module, name, guarded)

    for module in (builtins, io):
        guard(module, "open", lambda mode="r", *_, **__: bool(set(mode) & set("wax+")))
    guard(os, "open", lambda flags=0, *_, **__: bool(flags & WRITES))
    for name in ("mkdir", "rename", "replace", "rmdir", "unlink", "link", "symlink", "utime", "truncate"):
        guard(os, name, lambda *_, **__: True)
    for name in ("scandir", "listdir"):
        guard(os, name, lambda *_, **__: False)
    return lambda name: told.update(errno=getattr(errno, name))
