"""Moves uploads from gradio's folder into the studio's; what a closed page left there is removed after a day."""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import os
import re
import shutil
import threading
import time
from pathlib import Path

from gradio.utils import get_upload_folder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from studio.errors import SPACE, DataError
from studio.home import home, numbered, slug, subfolder

UPLOAD_FOLDER = re.compile(r"[0-9a-f]{40,64}")  # gradio puts each upload into a folder named by its content's hash
PARTIAL_FILE = re.compile(r"tmp[a-z0-9_]{8}")  # a file that is still coming, or that broke off
ABANDONED_AFTER = 24 * 3600.0  # seconds
# seconds an upload stays that was kept or refused: it is another tab's too, if the bytes are the same
SHARED_FOR = 600.0
BROKEN_AFTER = 600.0  # seconds without a byte, of a file that is still coming (bounded_http.py waits for less)
SILENT = 1.0  # seconds after which nothing more of a body comes
RESERVE = 50_000_000  # bytes of the disk that no upload takes: runs write their diaries there


async def refuse_without_room(request: Request) -> Response | None:
    """507 for an upload that the disk has no room for, before any of it is written; None for others."""
    size = request.headers.get("content-length", "")
    if not size.isdecimal() or int(size) + RESERVE <= shutil.disk_usage(home()).free:
        return None
    return await no_room(request)


async def no_room(request: Request) -> Response:
    """What somebody is told whose file found no room. A browser only listens once it has sent all, so all is taken."""
    with contextlib.suppress(TimeoutError):  # all had come before
        while True:
            async with asyncio.timeout(SILENT):
                message = await request.receive()
            if message["type"] != "http.request" or not message.get("more_body"):
                break
    size, free = int(request.headers.get("content-length", 0)), shutil.disk_usage(home()).free
    return PlainTextResponse(
        f"The file has {size / 2**20:,.0f} MiB, and the disk of {home()} has {free / 2**20:,.0f} MiB free, of which "
        f"{RESERVE / 2**20:.0f} are kept for runs.\n{SPACE}",
        507,
    )


def uploaded(given: object) -> Path:
    """The file of an upload, as gradio's FileData or as a path; all links followed. Raises DataError for any other."""
    try:
        path = Path(str((given.get("path") if isinstance(given, dict) else given) or "")).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        path = Path()
    if not path.is_file() or not path.is_relative_to(Path(get_upload_folder()).resolve()):
        raise DataError("That is no uploaded file.", "Upload it first: handle_file(…) in gradio_client does.", "file")
    return path


def keep(path: Path, name: str) -> Path:
    """Move an upload into the studio's uploads; returns its path.

    Another file of the name gets a number; the same bytes under the name are that file.
    """
    given = Path(name)
    ending = slug(given.suffix.lstrip("."), "txt")[:8]
    stem = slug(given.stem, "data")[:48]
    for target in numbered(subfolder("uploads"), stem, f".{ending}"):
        try:
            _copy(path, target)
        except FileExistsError:
            if not filecmp.cmp(path, target, shallow=False):
                continue
        return target
    raise DataError(f"There are too many files named {stem}.{ending}.", "Give it another name.", "name")


def _copy(path: Path, target: Path) -> None:
    """The file under another name, as the same bytes on the disk where it can be. Raises FileExistsError."""
    if UPLOAD_FOLDER.fullmatch(path.parent.name):
        try:
            os.link(path, target)
            return
        except FileExistsError:
            raise
        except OSError:
            pass  # another disk, or one without links
    with open(path, "rb") as source, open(target, "xb") as file:
        try:
            shutil.copyfileobj(source, file)
        except OSError:
            target.unlink(missing_ok=True)
            raise


def drop(path: Path) -> None:
    """Let gradio's copy of an upload go soon, and remove whatever has lain there for a day."""
    if UPLOAD_FOLDER.fullmatch(path.parent.name):
        begun = time.time() - ABANDONED_AFTER + SHARED_FOR
        with contextlib.suppress(OSError):
            os.utime(path.parent, (begun, begun))
        timer = threading.Timer(SHARED_FOR + SILENT, sweep)
        timer.daemon = True
        timer.start()
    sweep()


def sweep() -> None:
    """Remove uploads that nobody came back for, or that broke off."""
    try:
        for path in Path(get_upload_folder()).iterdir():
            age = time.time() - path.stat().st_mtime
            if age > ABANDONED_AFTER and UPLOAD_FOLDER.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
            elif age > BROKEN_AFTER and PARTIAL_FILE.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError:
        return
