"""A document as text, and the passages that questions are asked about: cut at headings, then at paragraphs."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from studio.errors import DataError

PLAIN = frozenset((".txt", ".md", ".markdown", ".rst", ".text"))
CONVERTED = frozenset((".pdf", ".docx", ".pptx", ".xlsx", ".html", ".htm", ".epub"))  # by markitdown
ZIPPED = frozenset((".docx", ".pptx", ".xlsx", ".epub"))
MAX_BYTES = 50_000_000
MAX_CHARS = 3000  # of a passage
MIN_CHARS = 80  # a shorter one goes with the next under the same heading, or holds nothing to ask about
HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*")
FENCE = re.compile(r"\s*(```|~~~)")


class Passage(NamedTuple):
    """heading: the headings that it stands under, the outermost first, joined by " › "."""

    heading: str
    text: str


def text_of(path: Path) -> str:
    """The document's text, as Markdown where it was converted. Raises DataError."""
    ending = path.suffix.lower()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path.name} is larger than {MAX_BYTES // 10**6} MB.", "Split it.", "document")
        if ending in CONVERTED:
            text = _converted(path)
        else:
            content = path.read_bytes()
            if ending not in PLAIN and b"\x00" in content[:4096]:
                known = ", ".join(sorted(name.lstrip(".") for name in PLAIN | CONVERTED))
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
    """What markitdown makes of it; it would read a damaged file as plain text."""
    ending = path.suffix.lower()
    with open(path, "rb") as file:
        is_damaged = ending == ".pdf" and b"%PDF" not in file.read(1024)
    if is_damaged or ending in ZIPPED and not zipfile.is_zipfile(path):
        raise DataError(f"{path.name} is damaged, or no {ending} file.", "Save it again, or as text.", "document")
    try:
        from markitdown import MarkItDown  # optional
    except ImportError:
        raise DataError(
            f"{path.name} must be converted first, which takes the package markitdown.",
            'Install it with pip install "markitdown[pdf,docx,pptx,xlsx]", or save the document as Markdown or text.',
            "document",
        ) from None
    try:
        return str(MarkItDown(enable_plugins=False).convert_local(str(path)).text_content)
    except Exception as error:  # its parsers raise what they like on a damaged file
        reason = str(error).split("\n")[0][:200]
        raise DataError(f"{path.name} could not be converted: {reason}.", "Save it as text.", "document") from error


def passages(text: str) -> list[Passage]:
    """The passages in their order; no line is in two of them, and only headings and blank lines are in none."""
    cut: list[Passage] = []
    path: list[tuple[int, str]] = []  # (level, heading)
    lines: list[str] = []
    fenced = False

    def close() -> None:
        heading = " › ".join(title for _, title in path)
        cut.extend(Passage(heading, part) for part in _parts("\n".join(lines).strip()))
        lines.clear()

    for line in text.replace("\r\n", "\n").split("\n"):
        fenced ^= FENCE.match(line) is not None
        match = None if fenced else HEADING.fullmatch(line)
        if match:
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
