"""The studio's home folder, safe names in it, and atomic writes."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio import crash
from studio.errors import StudioError, writing_below

HOME_HINT = "Give a folder that may be written, with --home or STUDIO_HOME."
PROJECT = Path(__file__).resolve().parent.parent  # the checkout: app.py, templates/, studio/samples/


def home() -> Path:
    """STUDIO_HOME, else the persistent disk of a Space (/data), else ~/.fine-tuning-studio. Created if missing."""
    named = os.environ.get("STUDIO_HOME")
    if named:
        path = Path(named).expanduser()
    elif os.environ.get("SPACE_ID") and os.access("/data", os.W_OK):
        path = Path("/data/studio")
    else:
        path = Path.home() / ".fine-tuning-studio"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StudioError(f"The home {str(path)[:200]} cannot be made: {error.strerror}.", HOME_HINT, "home") from error
    return path.resolve()


def check_working_folder() -> None:
    """Raise StudioError where the folder that the program was started in is gone: no path can be told there."""
    try:
        os.getcwd()
    except OSError:
        hint = "Go to another one (cd ~), then start it again."
        raise StudioError("The folder that this was started in is not there any more.", hint) from None


def restrict_permissions() -> None:
    """Make the home unreadable for other users; older versions created it readable for all."""
    path = home()
    status = path.stat()
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        path.chmod(0o700)


def subfolder(name: str) -> Path:
    """A folder under home: runs, models, uploads, datasets, cache, locks. Created if missing."""
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
    """Return folder/name. Raises StudioError if it lies outside the folder (.., absolute, a symbolic link)."""
    path = (folder / name).resolve()
    if not name or path == folder.resolve() or not path.is_relative_to(folder.resolve()):
        hint = "Give a plain name without slashes."
        raise StudioError(f"The name {name!r} leads outside the folder {folder.name}.", hint, "name")
    return path


def numbered(folder: Path, name: str, ending: str = "") -> Iterator[Path]:
    """The path of a name in a folder, then those of NAME-2, NAME-3, … for when it is taken."""
    for number in range(1, 10_000):
        yield folder / f"{name if number == 1 else f'{name}-{number}'}{ending}"


def write_atomic(path: Path, data: str | bytes, mode: int = 0o666) -> None:
    """Write a file atomically: a reader, or a crash, sees the old content or the new.

    Writes a temporary file in the same folder, then fsync, rename, fsync of the folder. mode: permissions, less
    the umask. A read-modify-write also needs `changing`.
    """
    temporary = temporary_path(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with writing_below(path), open(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        crash.point("whole.written")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def temporary_path(path: Path) -> Path:
    """A unique path beside `path` for its next content: .NAME.RANDOM.PID.tmp, short enough for any file system."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.{os.getpid()}.tmp")


@contextmanager
def changing(path: Path, wait: float = 30.0) -> Iterator[None]:
    """Lock for a read-modify-write of a file against other threads and processes that use this on the same folder.

    A flock on the folder: it leaves no file behind, and the kernel releases it when its holder dies. Not reentrant.
    Raises TimeoutError after `wait` seconds.
    """
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not flock(descriptor, wait):
            raise TimeoutError(f"{path} is being changed by another process for {wait:.0f} s")
        yield
    finally:
        os.close(descriptor)


def flock(descriptor: int, wait: float, kind: int = fcntl.LOCK_EX, poll: float = 0.002) -> bool:
    """Lock an open file or folder; False where it is still held by another after `wait` seconds."""
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(poll)


def replace_folder(target: Path, new: Path, old: Path, kind: str) -> None:
    """Give a complete folder the name of `target`; one that has it already is kept as `old` until then.

    kind: of what is replaced, in the names of crash points.
    """
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        crash.point(f"{kind}.aside")
    os.rename(new, target)
    fsync_path(target.parent)
    crash.point(f"{kind}.renamed")
    shutil.rmtree(old, ignore_errors=True)


def fsync_path(path: Path) -> None:
    """fsync a file or folder; of a folder: its renames survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_size(folder: Path) -> int:
    """Bytes of all files under a folder; files that vanish meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue  # a checkpoint was rotated meanwhile
    return total
