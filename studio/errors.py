"""Errors the user can act on: what was found, what would be right, what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LFS_POINTER = b"version https://git-lfs"


class StudioError(Exception):
    """An error with a message for the user.

    message: what was found, with the value. hint: what would be right and what to do.
    where: the key, file or row it concerns, e.g. "method.rank" or "data.json:12".
    reason: a short name of the cause for programs, written into a run's end event ("memory", "nan", "gated", …); the
    class's own by default.
    """

    reason = "refused"

    def __init__(self, message: str, hint: str = "", where: str | None = None, reason: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.reason = reason or self.reason

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def as_dict(self) -> dict[str, str | None]:
        return {"message": self.message, "hint": self.hint, "where": self.where}


class OrderError(StudioError):
    """The order (a RunConfig) cannot be carried out as written."""

    reason = "order"


def wrong_setting(error: Any, section: str, hint: str = "Correct it.") -> OrderError:
    """What a person is told of a pydantic ValidationError: its first fault, under the section's name."""
    first = error.errors()[0]
    where = ".".join(map(str, (section, *first["loc"])))
    if first["type"] == "string_too_short" and not first["input"]:
        return OrderError(f"{where} is empty.", "Fill it in.", where)
    return OrderError(f"{where}: {first['msg'].removeprefix('Value error, ')}.", hint, where)


class DataError(StudioError):
    """A data file cannot be read, or a row cannot be trained on."""

    reason = "data"


class TemplateError(StudioError):
    """A chat template is missing, broken, or trains the wrong tokens."""

    reason = "template"


class ModelError(StudioError):
    """A base model cannot be found, fetched or understood."""

    reason = "model"


class DeviceError(StudioError):
    """The device lacks what was asked of it."""

    reason = "device"


class RunError(StudioError):
    """A run does not exist, or is not in a state that allows what was asked."""

    reason = "run"


class ExportError(StudioError):
    """A result could not be merged, exported or pushed."""

    reason = "export"


@contextmanager
def reading_model_file(what: object) -> Iterator[None]:
    """Context in which a model's file is read: any error a damaged file causes becomes a ModelError that names it."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise as_studio_error(error) or error from error
    except Exception as error:
        if isinstance(what, Path) and _is_lfs_pointer(what):
            hint = "The file itself was not fetched: run git lfs pull, or download it."
            raise ModelError(f"{what} is a Git LFS pointer, not the file itself.", hint, "model") from error
        if isinstance(error, StudioError):
            raise
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__} {lines[0][:120] if lines else ''}".strip()
        if isinstance(error, RecursionError):
            reason = "it is nested too deeply"
        hint = "Download the model again, or take another one."
        raise ModelError(f"{what} is damaged or of an unknown kind ({reason}).", hint, "model") from error


def _is_lfs_pointer(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


# -- errors of the system: disks, permissions, limits, unreadable text

SPACE = "Free some space, or give another home with --home or STUDIO_HOME."
RIGHTS = "Change its permissions, or give another home with --home or STUDIO_HOME."
# errno -> (message, hint); {0}: the file, {1}: the length of its name
SYSTEM_ERRORS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("The disk is full: {0} could not be written.", SPACE),
    errno.EDQUOT: ("Your share of the disk is used up: {0} could not be written.", SPACE),
    errno.EFBIG: ("{0} would be larger than files may be there.", "Use another disk or file system."),
    errno.EROFS: ("{0} lies on a disk that may only be read.", RIGHTS),
    errno.EACCES: ("{0} may not be used: permission denied.", RIGHTS),
    errno.EPERM: ("{0} may not be used: the system does not permit it.", RIGHTS),
    errno.ENAMETOOLONG: (
        "The path is too long, {1} characters: {0}",
        "Give a shorter name, of at most 255 bytes between two slashes.",
    ),
    errno.EMFILE: (
        "Too many files are open in this program; {0} could not be opened.",
        "Close pages and programs that use the studio, or allow more with ulimit -n 4096 before it is started.",
    ),
    errno.ENFILE: (
        "Too many files are open on this computer; {0} could not be opened.",
        "Close other programs, then try again.",
    ),
    errno.ENOENT: (
        "{0} is not there, or not there any more.",
        "It may have been moved or deleted meanwhile. Check the path, or choose again.",
    ),
    errno.ESTALE: ("{0} is not there any more.", "The disk it lies on was taken away. Connect it again."),
    errno.ENOTDIR: ("A part of the path {0} is a file, not a folder.", "Check the path."),
    errno.EISDIR: ("{0} is a folder, where a file is wanted.", "Name a file inside it."),
    errno.EEXIST: ("{0} is there already.", "Give another name, or remove it first."),
    errno.ELOOP: ("{0} is a link that leads back to itself.", "Remove the link."),
    errno.EIO: ("The disk did not read or write {0}.", "It may be failing: make a copy of what matters, and check it."),
    errno.ENOMEM: ("There is not enough memory left.", "End other programs, then try again."),
    errno.EAGAIN: ("The system could start no further process or thread.", "End other programs, then try again."),
    errno.EADDRINUSE: ("Another program listens at this port already.", "Give another one with --port."),
    errno.EADDRNOTAVAIL: (
        "This computer has no such address.",
        "Give 127.0.0.1, or one of this computer's own addresses, with --host.",
    ),
}


def is_disk_full(error: BaseException) -> bool:
    """Whether the system had no room left for what was written."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing_below(path: object) -> Iterator[None]:
    """Context in which a full disk is told with the path that was written: the system names none."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error) and error.filename is None:
            error.filename = str(path)
        raise


def reason_of(error: BaseException) -> str:
    """Why, in a few words and without a full stop: the system's own of its errors, else the first line of what it says.

    Never Python's own way to write an error, such as [Errno 2] or the quotes of a KeyError.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError) and error.args:
        return f"{error.args[0]} is missing"
    lines = str(error).strip().splitlines()
    return (lines[0][:200] if lines else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__)).rstrip(".")


def named_reason(error: BaseException) -> str:
    """The kind of an error and the first line of what it says, for one of a program that is not ours: KeyError: 'a'."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}".rstrip(". ")


def as_studio_error(error: BaseException) -> StudioError | None:
    """A system error as a StudioError with a hint; None for a bug of this program, which shows as a traceback."""
    if isinstance(error, StudioError):
        return error
    rust_error = re.search(r"\(os error (\d+)\)", str(error))  # libraries in Rust raise no OSError
    if rust_error and not isinstance(error, OSError):
        error = OSError(int(rust_error[1]), os.strerror(int(rust_error[1])))
    if isinstance(error, TimeoutError):
        return StudioError(f"It took too long: {str(error) or 'no answer came'}.", "Try again.", reason="time")
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):  # tempfile's, of all that it tried
        message = "There is no folder for temporary files that can be written: /tmp may be full."
        hint = "Free some space, or set TMPDIR to a folder that has some."
        return StudioError(message, hint, "TMPDIR", "disk")
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, RecursionError):
        return StudioError("This is nested too deeply to be read.", "Use fewer brackets within brackets.", "nesting")
    if isinstance(error, MemoryError):
        return StudioError("There is not enough memory left.", "End other programs, then try again.", reason="memory")
    if isinstance(error, UnicodeEncodeError) and error.encoding == "ascii":
        message = "This program was started for ASCII alone, and a name or text here holds other letters."
        hint = "Set PYTHONUTF8=1 or LANG=C.UTF-8, then start it again."
        return StudioError(message, hint, "text")
    if isinstance(error, UnicodeError):
        hint = "Remove what is no letter, digit or sign."
        return StudioError("This text holds characters that cannot be written down.", hint, "text")
    if isinstance(error, OverflowError) or (
        isinstance(error, ValueError) and "integer string conversion" in str(error)
    ):
        return StudioError("A number in this is far too large.", "Give a number of at most 15 digits.", "number")
    if isinstance(error, ValueError) and "null byte" in str(error):
        return StudioError("A name holds a zero byte.", "Give a name of plain letters.", "name")
    return None


def _of_system(error: OSError) -> StudioError:
    """The system's error by its number, with the name of the file."""
    file = str(error.filename if error.filename is not None else "a file")  # stands first in some sentences
    what, hint = SYSTEM_ERRORS.get(
        error.errno or 0, ("{0}: " + (error.strerror or str(error) or type(error).__name__) + ".", "Try again.")
    )
    shown = file if len(file) <= 200 else f"{file[:120]}…{file[-40:]}"
    sentence = what.format(shown, len(os.fsencode(file)))
    return StudioError(re.sub("^a file", "A file", sentence), hint, "home", "disk" if is_disk_full(error) else None)


def internal_error(error: BaseException) -> StudioError:
    """A StudioError for a bug of this program."""
    return StudioError(
        f"The studio made a mistake: {type(error).__name__}: {str(error)[:200]}".rstrip(": ") + ".",
        "Its terminal shows where. Please report it with those lines.",
        reason="bug",
    )
