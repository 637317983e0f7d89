"""JSON values one after the other from a file of any size, each with its line."""

from __future__ import annotations

import codecs
import json
import re
from typing import IO, Any

from studio.data.block import MAX_ROW_BYTES, READ_BYTES
from studio.errors import DataError

PRINTED = re.compile(r"double quotes .*near .*\{\s*\\?['\w]")
WIDE = re.compile("[：，“”]")


class JsonStream:
    """JSON values from a file of any size, each with its line. Holds little more than the value it is at."""

    def __init__(self, file: IO[bytes], name: str, head: bytes = b""):
        """head: what was read of the file already."""
        self.file, self.name, self.at, self.line, self.done, self.ended = file, name, 0, 1, len(head), False
        self.duplicate_keys: dict[str, None] = {}  # keys that stood twice in an object
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.json = json.JSONDecoder(
            object_pairs_hook=lambda pairs: object_noting_duplicates(pairs, self.duplicate_keys)
        )
        self.text = self.decoder.decode(head)

    def more(self, size: int = READ_BYTES) -> bool:
        if len(self.text) - self.at > MAX_ROW_BYTES + READ_BYTES:
            raise row_too_long(self.name, self.line)
        data = self.file.read(min(size, MAX_ROW_BYTES))
        self.done += len(data)
        self.ended = not data
        self.text = self.text[self.at :] + self.decoder.decode(data, final=not data)
        self.at = 0
        return not self.ended

    def peek(self) -> str:
        """The next sign that is not blank; "" at the end."""
        while True:
            while self.at < len(self.text):
                sign = self.text[self.at]
                if sign not in " \t\r\n\ufeff":
                    return sign
                self.line += sign == "\n"
                self.at += 1
            if not self.more():
                return ""

    def skip(self) -> None:
        self.at += 1

    def value(self) -> Any:
        size = READ_BYTES
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:
                    self.line += self.text.count("\n", self.at, end)
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended or (
                    error.pos < len(self.text) - 64
                    and not error.msg.startswith(("Unterminated", "Expecting value", "Invalid"))
                ):
                    self.line += self.text.count("\n", self.at, error.pos)
                    raise self.broken(_in_words(error)) from error
            except RecursionError as error:
                raise self.broken("it is nested too deeply") from error
            except ValueError as error:  # a number of thousands of digits
                raise self.broken(str(error).partition(";")[0]) from error
            size *= 2  # reading twice as much each time keeps the work linear
            self.more(size)

    def broken(self, why: str) -> DataError:
        hint = "Correct that line, or export the file again."
        if PRINTED.search(why):
            hint = "Python or JavaScript printed these rows; write them with json.dumps or JSON.stringify."
        if WIDE.search(why):
            hint = "Full-width signs stand where JSON wants : , and plain quotation marks. Replace them in that line, or export the file again."
        return DataError(f"{self.name} is not whole JSON: line {self.line}: {why}.", hint, f"{self.name}:{self.line}")


def object_noting_duplicates(pairs: list[tuple[str, Any]], duplicate_keys: dict[str, None]) -> dict[str, Any]:
    """The object of these pairs; keys that it has twice are noted."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate_keys |= dict.fromkeys(key for key in made if keys.count(key) > 1)
    return made


def duplicate_key_notes(duplicate_keys: dict[str, None]) -> list[str]:
    """What is said of keys that stand twice."""
    return (
        [
            f"Some rows have a key more than once ({', '.join(list(duplicate_keys)[:5])}): the last value of each is read."
        ]
        if duplicate_keys
        else []
    )


def row_too_long(name: str, line: int) -> DataError:
    hint = "Is the end of a row or a quotation mark missing? Correct that line."
    return DataError(f"Line {line} of {name} is longer than {MAX_ROW_BYTES >> 20} MB.", hint, f"{name}:{line}")


def _in_words(error: json.JSONDecodeError) -> str:
    near = " ".join(error.doc[max(0, error.pos - 20) : error.pos + 20].split())
    return f"{error.msg} (near {near!r})"
