"""Files that are no data that can be read here: known by their first bytes or by their ending, each with a way out."""

from __future__ import annotations

import re
from pathlib import Path

from studio.data.compression import compression_of
from studio.errors import LFS_POINTER, DataError

CHOOSE_HINT = "Choose a JSON, JSON Lines, CSV, TSV, Excel, Parquet or Arrow file (packed ones are fine)."
UNPACK_HINT = "Unpack it, and choose the file that it holds."
TO_PARQUET = "Load it in Python, and write it with to_parquet or to_json(…, orient='records', lines=True)."
MAKE_HINT = "Rows can be made of it: From documents on the Data tab, or `python -m studio make`."
ANKI_HINT = (
    "In Anki: File, Export, Notes in Plain Text (.txt). Then take out the lines that begin with #, and write names of "
    "the columns above the first line, parted as its cells are: prompt, completion."
)
MAGIC: dict[bytes, tuple[str, str]] = {  # first bytes -> what it is, what to do
    b"%PDF": ("a PDF", MAKE_HINT),
    b"\xd0\xcf\x11\xe0": ("an old Office file", "Save it as CSV."),
    b"GGUF": ("a model (GGUF)", "Choose it as the model, not as the data."),
    b"SQLite": ("an SQLite database", "Export the table as CSV."),
    b"\x89PNG": ("an image", "This studio trains on text."),
    b"\xff\xd8\xff": ("an image", "This studio trains on text."),
    LFS_POINTER: ("a Git LFS pointer", "The file itself was not fetched: run git lfs pull, or download it."),
    **dict.fromkeys(
        (b"<!DOCTYPE html", b"<!doctype html", b"<html", b"<HTML"),
        ("a web page", "Download the file itself, not the page that shows it."),
    ),
    b"<table": ("a table in HTML", "Open it in a spreadsheet program, and save it as CSV."),
    b"{\\rtf": ("a text in RTF", "Open it in a word processor, and save it as plain text (.txt)."),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", UNPACK_HINT),
    b"Rar!\x1a\x07": ("a RAR archive", UNPACK_HINT),
    b"\x04\x22\x4d\x18": ("packed with LZ4", UNPACK_HINT),
    b"Obj\x01": ("an Avro file", TO_PARQUET),
    b"FEA1": ("a Feather file of the first version", TO_PARQUET),
    b"\x93NUMPY": ("an array of NumPy", TO_PARQUET),
    **dict.fromkeys((b"\x80\x03", b"\x80\x04", b"\x80\x05"), ("a pickle of Python", TO_PARQUET)),
}
XML = frozenset((".xml", ".xhtml", ".tmx", ".xlf", ".xliff", ".tei", ".rss"))
SUBTITLES = re.compile(r"(?:WEBVTT|\d+\s*\n\d\d:\d\d:\d\d[,.]\d{3} -->)")
XML_ROWS = "[{c.tag: ''.join(c.itertext()) for c in r} for r in E.parse(sys.stdin).getroot()]"
TMX_ROWS = (
    "[{next(iter(v.attrib.values())): ''.join(v.find('seg').itertext()) for v in u.iter('tuv')} "
    "for u in E.parse(sys.stdin).iter('tu')]"
)
WORDS_ALONE = (
    "python -c \"import re, sys; print(re.sub(r'(?m)^(WEBVTT.*|\\d+|[\\d:,.]+ --> .*)\\n', '', sys.stdin.read()))\""
)
CHAT_LINE = (  # WhatsApp's; LINE's, IRC's and those of meetings have no date
    r"^\u200e?\[?(?:\d[\d./-]+,? )?\d\d?:\d\d[\d:.]*(?:\s?[APap]\.?[Mm]\.?)?\]?(?: -)?[ \t]+"
    r"<?([^:>\t\n]{1,40})(?:: |> |\t)"
)
LOG_LEVELS = frozenset(("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL", "TRACE", "NOTICE"))
CHAT_TURNS = (
    f"python -c \"import itertools, json, re, sys; said = re.split(r'(?m){CHAT_LINE}', sys.stdin.read())[1:]; "
    "json.dump([{'user': who, 'text': ''.join(words for _, words in turn).strip(), 'ts': n} for n, (who, turn) in "
    'enumerate(itertools.groupby(zip(said[::2], said[1::2]), key=lambda pair: pair[0]))], sys.stdout)"'
)
SCRIPT = re.compile(r"(?:export default|module\.exports|var|let|const|window)\b[^\[{]{0,80}[\[{]")


def refuse_magic(path: Path, head: bytes, compression: str) -> None:
    """Raise DataError for a file whose first bytes say that it is no data. head: unpacked."""
    if compression and (inner := compression_of(head)):
        module = {"gz": "gzip", "bz2": "bz2", "xz": "lzma"}.get(compression, "compression.zstd")
        raise DataError(
            f"{path.name} is packed twice ({inner} in {compression}).",
            f"Unpack it once: python -c \"import {module} as z; open('{path.stem}', 'wb').write("
            f"z.open('{path.name}').read())\"",
            path.name,
        )
    for magic, (kind, hint) in MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{path.name} is {kind}, not data.", hint, path.name)


def refuse_notation(path: Path, text: str) -> None:
    """Raise DataError for a text file in a notation that is not read as data. text: its beginning."""
    endings, begin = {ending.lower() for ending in path.suffixes}, text.lstrip()[:4096]
    if {".yaml", ".yml"} & endings:
        raise _convertible(path, "YAML", "yaml", "yaml.load(sys.stdin, yaml.BaseLoader)")
    if ".toml" in endings:
        raise _convertible(path, "TOML", "tomllib", "tomllib.loads(sys.stdin.read())")
    if XML & endings or (begin.startswith("<?xml") and endings.isdisjoint((".txt", ".md"))):
        rows = TMX_ROWS if ".tmx" in endings else XML_ROWS
        raise _convertible(path, "XML", "xml.etree.ElementTree as E", rows)
    speakers = re.findall(CHAT_LINE, begin, re.MULTILINE)
    if len(set(speakers) - LOG_LEVELS) > 1 and 2 * len(speakers) > begin.count("\n"):
        hint = f"Make turns of it: {CHAT_TURNS} < {path.name} > {path.stem}.json"
        raise DataError(f"{path.name} is an exported chat: dates and names stand before the words.", hint, path.name)
    if SUBTITLES.match(begin):
        hint = f"Keep the words alone: {WORDS_ALONE} < {path.name} > {path.stem}-words.txt"
        raise DataError(f"{path.name} holds subtitles: numbers and times stand between the words.", hint, path.name)
    if re.match(r"#(?:separator|html|columns|notetype|deck|tags)[ a-z]*:", begin):
        raise DataError(f"{path.name} is an export of Anki: its columns have no names.", ANKI_HINT, path.name)
    if ".sql" in endings:
        hint = "Load it into its database, and export the table as CSV; to train on the SQL itself, name it .txt."
        raise DataError(f"{path.name} is SQL, which is not read as data.", hint, path.name)
    if {".js", ".ts", ".mjs"} & endings and SCRIPT.match(begin):
        hint = "Take out what stands before the first [ or {, and behind the last ] or }, and name it .json."
        raise DataError(f"{path.name} is a script around its data.", hint, path.name)


def _convertible(path: Path, notation: str, module: str, rows: str) -> DataError:
    return DataError(
        f"{path.name} is {notation}, which is not read as data.",
        f'Save it as JSON: python -c "import json, sys, {module}; json.dump({rows}, sys.stdout, default=str)" '
        f"< {path.name} > {path.stem}.json",
        path.name,
    )
