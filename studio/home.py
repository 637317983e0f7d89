"""Where uploads, models, datasets and runs live, and which names are safe in there."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from studio import crash
from studio.errors import StudioError

HOME_HINT = "Give a folder that may be written, with --home or STUDIO_HOME."
PROJECT = Path(__file__).resolve().parent.parent  # the checkout: app.py, templates/, studio/samples/


def home() -> Path:
    """STUDIO_HOME, else the lasting disk of a Space (/data), else ~/.fine-tuning-studio. Made if missing."""
    named = os.environ.get("STUDIO_HOME")
    if named:
        path = Path(named).expanduser()
    elif os.environ.get("SPACE_ID") and os.access("/data", os.W_OK):
        path = Path("/data/studio")
    else:
        path = Path.home() / ".fine-tuning-studio"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudioError(f"The home {str(path)[:200]} cannot be made: {error.strerror}.", HOME_HINT, "home") from error
    return path.resolve()


def room(name: str) -> Path:
    """A folder under home: runs, models, uploads, datasets, cache, locks. Made if missing."""
    path = home() / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def slug(text: str, fallback: str = "run") -> str:
    """A file name from free text: letters, digits, dash, underscore, inner dots; at most 64 characters and 180 bytes.

    Letters of any script stay (Chinese names are names); everything else becomes a dash.
    """
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"[^\w.-]+", "-", text).strip("-._")
    text = re.sub(r"\.{2,}", ".", text)[:64].encode()[:180].decode(errors="ignore").strip("-._")
    return text or fallback


def inside(folder: Path, name: str) -> Path:
    """folder/name, refused when it would leave the folder (.., absolute, a link that leads outside)."""
    path = (folder / name).resolve()
    if not name or path == folder.resolve() or not path.is_relative_to(folder.resolve()):
        raise StudioError(f"The name {name!r} leads outside {folder}.", "Give a plain name without slashes.", "name")
    return path


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and never a half.

    Temporary file in the same folder, fsync, rename, fsync of the folder.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        crash.point("whole.written")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder last a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bytes_in(folder: Path) -> int:
    """Bytes of all files under a folder; those that vanish while it is walked do not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue  # a checkpoint rotated away meanwhile
    return total
