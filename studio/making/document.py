"""A document as text, and the passages that questions are asked about: cut at headings, then at paragraphs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from studio.errors import DataError

PLAIN = frozenset((".txt", ".md", ".markdown", ".rst", ".text"))
CONVERTED = {
    ".pdf": "PdfConverter",
    ".docx": "DocxConverter",
    ".pptx": "PptxConverter",
    ".xlsx": "XlsxConverter",
    ".html": "HtmlConverter",
    ".htm": "HtmlConverter",
    ".epub": "EpubConverter",
}  # endings, and markitdown's converters
MAX_BYTES = 50 << 20
MAX_CHARS = 3000  # of a passage
MIN_CHARS = 80  # a shorter one goes with the next under the same heading, or holds nothing to ask about
HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*")
FENCE = re.compile(r"\s*(```|~~~)")
TITLE = re.compile(r"[^\n]{1,80}[^\s.!?:;,。！？：；，]")  # a first line that stands alone before the first heading
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)  # markitdown's numbers of slides


class Passage(NamedTuple):
    """heading: the headings that it stands under, the outermost first, joined by " › ". document: its file's name."""

    heading: str
    text: str
    document: str = ""


def documents(path: Path) -> list[Path]:
    """The documents of known kinds in a folder and below, in the order of their names; a file is itself."""
    if not path.is_dir():
        return [path]
    found = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in {*PLAIN, *CONVERTED} and file.is_file())
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]


def text_of(path: Path) -> str:
    """The document's text, as Markdown where it was converted. Raises DataError."""
    ending = path.suffix.lower()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path.name} is larger than {MAX_BYTES >> 20} MiB.", "Split it.", "document")
        if ending in CONVERTED:
            text = _converted(path)
        else:
            content = path.read_bytes()
            if ending not in PLAIN and b"\x00" in content[:4096]:
                known = ", ".join(sorted(name.lstrip(".") for name in {*PLAIN, *CONVERTED}))
                raise DataError(f"{path.name} is no document of a known kind.", f"Give one of {known}.", "document")
            text = _decoded(content, path.name)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Give another file.", "document") from error
    if not text.strip():
        raise DataError(f"{path.name} holds no text.", "A scanned page needs text recognition (OCR) first.", "document")
    return text


def _decoded(content: bytes, name: str) -> str:
    from studio.data.encodings import encoding_of

    return content.decode(encoding_of(content, name, True), "replace").lstrip("\ufeff")


def _converted(path: Path) -> str:
    """What markitdown's converter for the ending makes of it; others would read a damaged file as plain text."""
    try:
        from markitdown import FileConversionException, MarkItDown, converters  # optional
    except ImportError:
        message = f"{path.name} must be converted first, which takes the package markitdown."
        hint = 'Install it with pip install "markitdown[pdf,docx,pptx,xlsx]", or save the document as Markdown or text.'
        raise DataError(message, hint, "document") from None
    reader = MarkItDown(enable_builtins=False, enable_plugins=False)
    reader.register_converter(getattr(converters, CONVERTED[path.suffix.lower()])())
    try:
        return COMMENT.sub("", reader.convert_local(str(path)).text_content)
    except FileConversionException as error:
        reason = str(error.attempts[0].exc_info[1]).split("\n")[0][:200]
        raise DataError(f"{path.name} could not be converted: {reason}.", "Save it as text.", "document") from error


def passages(text: str, document: str = "") -> list[Passage]:
    """A text's passages in their order; no line is in two of them, and only headings and blank lines are in none."""
    cut: list[Passage] = []
    path: list[tuple[int, str]] = []  # (level, heading)
    lines: list[str] = []
    fenced = False

    def close() -> None:
        heading = " › ".join(title for _, title in path)
        cut.extend(Passage(heading, part, document) for part in _parts("\n".join(lines).strip()))
        lines.clear()

    for line in text.replace("\r\n", "\n").split("\n"):
        fenced ^= FENCE.match(line) is not None
        match = None if fenced else HEADING.fullmatch(line)
        if match:
            before = "\n".join(lines).strip()
            if not path and TITLE.fullmatch(before):
                path, lines = [(0, before)], []
            close()
            path = [entry for entry in path if entry[0] < len(match[1])] + [(len(match[1]), match[2])]
        else:
            lines.append(line)
    close()
    return cut


def _parts(text: str) -> list[str]:
    """A section in parts of at most MAX_CHARS, cut between paragraphs, else between sentences, else anywhere."""
    parts: list[str] = []
    for piece in _pieces(text):
        if parts and len(parts[-1]) + len(piece) <= MAX_CHARS:
            parts[-1] += piece
        elif piece.strip():
            parts.append(piece)
    if len(parts) > 1 and len(parts[-1].strip()) < MIN_CHARS:
        parts[-2:] = [parts[-2] + parts[-1]]
    return [part.strip() for part in parts]


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for paragraph in re.split(r"(?<=\n\n)", text):
        sentences = (
            [paragraph] if len(paragraph) <= MAX_CHARS else re.split(r"(?<=[.!?。！？])(?=\s|[^\x00-\x7f])", paragraph)
        )
        for sentence in sentences:
            pieces += [sentence[start : start + MAX_CHARS] for start in range(0, len(sentence), MAX_CHARS)]
    return pieces
