"""The files of a source: one file, the shards of a folder or pattern, or the data files in a ZIP archive."""

from __future__ import annotations

import glob
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from studio.errors import DataError, is_disk_full, reason_of, writing_below
from studio.home import subfolder

DATA_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".xlsx")
COMPRESSED_ENDINGS = (".gz", ".bz2", ".xz", ".zst")
ARCHIVE_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
SLACK_LISTS = frozenset(  # what an export of Slack holds beside its messages
    ("channels.json", "users.json", "dms.json", "groups.json", "mpims.json", "canvases.json", "integration_logs.json")
)
NOT_DATA = re.compile(
    r"^(\.|_|readme|license|licence|dataset_infos?\.json|config\.json|state\.json|.*\.ya?ml$|metadata\.json)",
    re.IGNORECASE,
)
HELD_OUT = re.compile(r"(^|[-_.])(test|tests|testing|valid|validation|val|dev|eval|evaluation)([-_.]|$)", re.IGNORECASE)
MAX_UNPACKED, MAX_RATIO, MAX_FILES = 64 << 30, 200, 10_000  # bytes unpacked, times the archive's size, files
OFFICE_FORMATS = {
    "[content_types].xml": "",
    "word/": "a Word document",
    "ppt/": "a presentation",
    "mimetype": "an office document",
    "collection.anki2": "a deck of Anki",
}


class Files:
    """The files of a source, in order. Use with `with`: what was unpacked is removed at the end.

    paths: of the files. notes: what was left out, in sentences. packed: "zip", or "".
    """

    def __init__(self, source: str | Path):
        self.paths, self.notes = [Path(source)], []
        self.archive, self.stack = "", ExitStack()
        self.has_channels = False  # an export of Slack: a folder for each channel
        self.passed_over: list[str] = []  # files beside the data that nothing here reads
        path = Path(source)
        try:
            if path.is_dir():
                self._choose(_files_below(path), path.name, path)
            elif not path.is_file() and glob.has_magic(str(source)):
                matches = sorted(Path(p) for p in glob.glob(str(source), recursive=True) if Path(p).is_file())
                if not matches:
                    hint = "Check the pattern, such as folder/*.jsonl."
                    raise DataError(f"No file matches {str(source)!r}.", hint, "data.train")
                self.paths = matches[:MAX_FILES]
            elif _is_archive(path):
                self._unpack(path)
        except BaseException:
            self.stack.close()
            raise
        if len(self.paths) > 1:
            self.notes.append(
                f"Read are {len(self.paths)} files, from {self.paths[0].name} to {self.paths[-1].name}; rows are "
                "counted through."
            )

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _choose(self, paths: Iterable[Path], name: str, below: Path) -> None:
        """The data files of one kind; those held out to test are left out where there are others."""
        paths = [p for p in paths if not NOT_DATA.match(p.name)]
        lists = [p for p in paths if p.name in SLACK_LISTS]
        lists = lists if {"channels.json", "users.json"} <= {p.name for p in lists} else []
        self.has_channels = bool(lists)
        files = [p for p in paths if _data_ending(p) and p not in lists]
        self.passed_over += [str(p.relative_to(below)) for p in paths if p in lists or not _data_ending(p)]
        if not files:
            raise self._no_data(name)
        # with the ending of their packing
        kinds = {_data_ending(p): p.name[p.name.lower().rindex(_data_ending(p)) :] for p in files}
        if len(kinds) > 1:
            hint = "Say which: " + " or ".join(f"{below}/**/*{ending}" for ending in sorted(kinds.values())[:3]) + "."
            if self.archive:
                hint = "Unpack it, and name the file that is meant."
            raise DataError(f"{name} holds files of several kinds: {', '.join(sorted(kinds))}.", hint, "data.train")
        held_out = [
            p for p in files if any(map(HELD_OUT.search, (p.name.partition(".")[0], *p.relative_to(below).parts[:-1])))
        ]
        if held_out and len(held_out) < len(files):
            files = [p for p in files if p not in held_out]
            named = ", ".join(str(p.relative_to(below)) for p in held_out[:5])
            self.notes.append(
                f"Left out, as their names say that they are for testing: {named}{', …' if len(held_out) > 5 else ''}."
            )
        if self.passed_over:
            more = f" and {len(self.passed_over) - 5:,} more" if len(self.passed_over) > 5 else ""
            self.notes.append(f"Not read, as they are no data files: {', '.join(self.passed_over[:5])}{more}.")
        self.paths = sorted(files, key=lambda p: _natural_key(str(p)))[:MAX_FILES]

    def _no_data(self, name: str) -> DataError:
        archives = [path for path in self.passed_over if path.lower().endswith(ARCHIVE_ENDINGS)]
        if archives:
            hint = "Unpack it, and choose what was packed in it."
            return DataError(f"{name} holds no data files, but {', '.join(archives[:5])}.", hint, "data.train")
        hint = f"Files that can be read end in {', '.join(DATA_ENDINGS)}."
        return DataError(f"{name} holds no data files.", hint, "data.train")

    def _unpack(self, path: Path) -> None:
        """The archive's data files, in a folder that is removed in the end."""
        self.archive = "zip"
        folder = Path(tempfile.mkdtemp(prefix=".zip-", dir=subfolder("datasets")))
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            with zipfile.ZipFile(path) as archive:
                inside = [i for i in archive.infolist() if not i.is_dir() and "__MACOSX" not in i.filename]
                size = sum(i.file_size for i in inside)
                if bursts(size, path) or len(inside) > MAX_FILES:
                    message = f"{path.name} would unpack to {size >> 20:,} MiB in {len(inside)} files."
                    hint = "Unpack it, and name the file."
                    raise DataError(message, hint, path.name)
                if any(info.flag_bits & 1 for info in inside):
                    hint = "Pack it again, without a password."
                    raise DataError(f"{path.name} is locked with a password.", hint, path.name)
                for info in inside:
                    inner = Path(info.filename.replace("\\", "/"))
                    if not _data_ending(inner) or NOT_DATA.match(inner.name):
                        if not NOT_DATA.match(inner.name):
                            self.passed_over.append(str(inner))
                        continue
                    target = folder.joinpath(*(part for part in inner.parts if part not in ("/", "..", ".")))
                    if target.exists() or not target.resolve().is_relative_to(folder.resolve()):
                        message = f"{path.name} holds a file whose name cannot be unpacked: {info.filename!r}."
                        hint = "Unpack it, and name the file that is meant."
                        raise DataError(message, hint, path.name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with writing_below(target), archive.open(info) as packed, open(target, "wb") as file:
                        shutil.copyfileobj(packed, file, 1 << 20)
        # RuntimeError (NotImplementedError): an unknown compression
        except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError) as error:
            if is_disk_full(error):
                raise
            hint = "Pack it again, without a password."
            raise DataError(f"{path.name} cannot be unpacked: {reason_of(error)}.", hint, path.name) from error
        self._choose(_files_below(folder), path.name, folder)


def bursts(unpacked: int, path: Path) -> bool:
    """Whether so many bytes are more than a packed file may hold."""
    return unpacked > MAX_UNPACKED or (unpacked > 1 << 30 and unpacked > MAX_RATIO * path.stat().st_size)


def _is_archive(path: Path) -> bool:
    """A ZIP archive that is no office document."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    return not office(path)


def office(path: Path) -> str:
    """ "xlsx", or the kind of office document a ZIP archive is; "" for others. Raises DataError for a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.lower() for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(
            f"{path.name} is a ZIP or Excel file, but damaged: {reason_of(error)}.", "Pack or save it again.", path.name
        ) from error
    if any(name.startswith("xl/") for name in names):
        return "xlsx"
    return next((kind for name, kind in OFFICE_FORMATS.items() if kind and any(n.startswith(name) for n in names)), "")


def _files_below(folder: Path) -> list[Path]:
    return [
        p
        for p in folder.rglob("*")
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    ]


def _data_ending(path: Path) -> str:
    """The ending that says what a file is, without that of its packing; "" for what is no data file."""
    endings = [s.lower() for s in path.suffixes]
    if endings and endings[-1] in COMPRESSED_ENDINGS:
        endings.pop()
    return endings[-1] if endings and endings[-1] in DATA_ENDINGS else ""


def _natural_key(name: str) -> list[tuple[bool, int, str]]:
    """part-2 before part-10."""
    return [(piece.isdecimal(), int(piece) if piece.isdecimal() else 0, piece) for piece in re.split(r"(\d+)", name)]
