"""JSON values one after the other from a file of any size, also as people write it, with the digits of its numbers."""

from __future__ import annotations

import codecs
import json
import re
from typing import IO, Any

from studio.data.block import MAX_ROW_BYTES, READ_BYTES
from studio.errors import DataError

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|#[^\n]*', re.DOTALL)
EXTRA = re.compile(r'("(?:[^"\\]|\\.)*")|,(\s*[}\]])', re.DOTALL)
MISSING = re.compile(r'("(?:[^"\\]|\\.)*")|([}\]])(\s*)(?=[{\[])', re.DOTALL)
ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
RAW = re.compile(r"[\x00-\x1f]")
LOSES_DIGITS = re.compile(rb"\d\.\d*0(?![\d.])|\d[eE][+-]?\d")  # in a line that may hold such a number
PYTHON_REPR = re.compile(r"double quotes .*near .*\{\s*\\?['\w]")
FULL_WIDTH = re.compile("[：，“”]")


def repair(text: str) -> tuple[str, list[str]]:
    """(the text as JSON, what was repaired). Line breaks outside strings stay, so line numbers remain right."""
    mended: dict[str, None] = {}

    def token(match: re.Match[str]) -> str:
        token_text = match[0]
        if token_text[0] != '"':
            mended["comments were left out"] = None
            return re.sub(r"[^\n]", " ", token_text)
        if RAW.search(token_text):
            mended["line breaks inside texts were kept as such"] = None
            return RAW.sub(lambda sign: ESCAPES.get(sign[0], f"\\u{ord(sign[0]):04x}"), token_text)
        return token_text

    def extra(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        mended["commas behind the last entry were left out"] = None
        return match[2]

    def missing(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        mended["missing commas were put in"] = None
        return f"{match[2]},{match[3]}"

    text = EXTRA.sub(extra, TOKEN.sub(token, text))
    text = MISSING.sub(missing, text)
    return text, list(mended)


class WrittenFloat(float):
    """A number whose text is not what Python writes."""

    written: str

    def __str__(self) -> str:
        return self.written


def written_float(text: str) -> float:
    """The number of a JSON text; as text it is again what stood there."""
    number = float(text)
    if repr(number) == text:
        return number
    kept = WrittenFloat(number)
    kept.written = text
    return kept


class JsonStream:
    """JSON values from a file of any size, each with its line. Holds little more than the value it is at."""

    def __init__(self, file: IO[bytes], name: str, head: bytes = b""):
        """head: what was read of the file already."""
        self.file, self.name = file, name
        self.position, self.line = 0, 1
        self.done, self.at_end = len(head), False
        self.duplicate_keys: dict[str, None] = {}  # keys that stood twice in an object
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.json = json.JSONDecoder(
            parse_float=written_float,
            object_pairs_hook=lambda pairs: object_noting_duplicates(pairs, self.duplicate_keys),
        )
        self.text = self.decoder.decode(head)

    def read_more(self, size: int = READ_BYTES) -> bool:
        if len(self.text) - self.position > MAX_ROW_BYTES + READ_BYTES:
            raise DataError(
                f"The value that begins in line {self.line} of {self.name} is longer than {MAX_ROW_BYTES >> 20} MiB.",
                "An object around the rows is read whole: write the list inside it alone, or one row a line. In a "
                "list of rows, the end of one or a quotation mark is missing.",
                f"{self.name}:{self.line}",
            )
        data = self.file.read(min(size, MAX_ROW_BYTES))
        self.done += len(data)
        self.at_end = not data
        self.text = self.text[self.position :] + self.decoder.decode(data, final=not data)
        self.position = 0
        return not self.at_end

    def peek(self) -> str:
        """The next sign that is not blank; "" at the end."""
        while True:
            while self.position < len(self.text):
                char = self.text[self.position]
                if char not in " \t\r\n\ufeff":
                    return char
                self.line += char == "\n"
                self.position += 1
            if not self.read_more():
                return ""

    def skip(self) -> None:
        self.position += 1

    def value(self) -> Any:
        size = READ_BYTES
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.position)
                if end < len(self.text) or self.at_end:
                    self.line += self.text.count("\n", self.position, end)
                    self.position = end
                    return value
            except json.JSONDecodeError as error:
                if self.at_end or (
                    error.pos < len(self.text) - 64
                    and not error.msg.startswith(("Unterminated", "Expecting value", "Invalid"))
                ):
                    self.line += self.text.count("\n", self.position, error.pos)
                    near = " ".join(error.doc[max(0, error.pos - 20) : error.pos + 20].split())
                    raise self.broken(f"{error.msg} (near {near!r})") from error
            except RecursionError as error:
                raise self.broken("it is nested too deeply") from error
            except ValueError as error:  # a number of thousands of digits
                raise self.broken(str(error).partition(";")[0]) from error
            size *= 2  # reading twice as much each time keeps the work linear
            self.read_more(size)

    def broken(self, why: str) -> DataError:
        hint = "Correct that line, or export the file again."
        if PYTHON_REPR.search(why):
            hint = "Python or JavaScript printed these rows; write them with json.dumps or JSON.stringify."
        if FULL_WIDTH.search(why):
            hint = (
                "Full-width signs stand where JSON wants : , and plain quotation marks. Replace them in that "
                "line, or export the file again."
            )
        return DataError(f"{self.name} is not whole JSON: line {self.line}: {why}.", hint, f"{self.name}:{self.line}")


def object_noting_duplicates(pairs: list[tuple[str, Any]], duplicate_keys: dict[str, None]) -> dict[str, Any]:
    """The object of these pairs; keys that it has twice are noted."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate_keys |= dict.fromkeys(key for key in result if keys.count(key) > 1)
    return result


def duplicate_key_notes(duplicate_keys: dict[str, None]) -> list[str]:
    """Notes on keys that an object has twice."""
    return (
        [
            f"Some rows have a key more than once ({', '.join(list(duplicate_keys)[:5])}): the last value of each "
            "is read."
        ]
        if duplicate_keys
        else []
    )


def row_too_long(name: str, line: int) -> DataError:
    hint = "Is the end of a row or a quotation mark missing? Correct that line."
    return DataError(f"Line {line} of {name} is longer than {MAX_ROW_BYTES >> 20} MiB.", hint, f"{name}:{line}")
