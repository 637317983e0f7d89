"""JSON Lines, read block by block: orjson reads what it can, the json module what orjson refuses or would round."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO, Any

import numpy as np
import orjson

from studio.data.block import LINES_BYTES, MAX_ROW_BYTES, Block
from studio.data.containers import Container
from studio.data.json_stream import (
    LOSES_DIGITS,
    duplicate_key_notes,
    object_noting_duplicates,
    repair,
    row_too_long,
    written_float,
)

LINES_CHECKED = 200  # lines
COMMAS = ["commas behind the last entry were left out"]
DIGITS_AS_ZEROS = bytes(ord("0") if chr(byte) in "0123456789" else ord(".") for byte in range(256))
LONG_NUMBER = b"0" * 20  # orjson makes a float of a whole number beyond 64 bits


def json_lines(
    file: IO[bytes], name: str, container: Container | None = None, limit: int | None = None
) -> Iterator[Block]:
    """A row a line. limit: bytes to read, counted from where the file stands; a line begun within them is finished."""
    first, done = 1, 0
    while (limit is None or done < limit) and (
        data := file.read(LINES_BYTES if limit is None else min(LINES_BYTES, limit - done))
    ):
        if not data.endswith(b"\n"):
            data += (rest := file.readline(MAX_ROW_BYTES))
            if len(rest) == MAX_ROW_BYTES and not rest.endswith(b"\n"):
                raise row_too_long(name, first + data.count(b"\n"))
        done += len(data)
        texts = data.split(b"\n")
        if not texts[-1]:
            texts.pop()
        block = _parse_lines(data, texts, range(first, first + len(texts)), done)
        suspicious = _with_a_key_twice(data, texts, block.rows)
        block.notes += _notes_on_duplicate_keys([*(texts[:LINES_CHECKED] if first == 1 else ()), *suspicious])
        first += len(texts)
        block.last = first - 1
        yield block


def _with_a_key_twice(data: bytes, texts: list[bytes], rows: list[Any]) -> list[bytes]:
    """The first of the lines (texts, data as a whole) in which a column's name occurs more often than once."""
    names = [name.encode(errors="replace") for name in next((row for row in rows if type(row) is dict), ())]
    signs = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(signs == ord(":")) - 1
    blank = signs[ends] == ord(" ")
    ends = (ends - blank)[(signs[ends - blank] == ord('"')) & (ends > 0)]  # of what may be a name

    def occurs_often(name: bytes) -> bool:
        """Whether it stands more often than once a line; where it may begin and end is looked at first, as is quick."""
        like_it = signs.take(ends - len(name) - 1, mode="clip") == ord('"')
        return np.count_nonzero(like_it) > len(texts) and whole.count(b'"%s":' % name) > len(texts)

    whole = data.replace(b'" :', b'":') if blank.any() else data
    often = [b'"%s":' % name for name in names if occurs_often(name)]
    return list(islice((text for text in texts if any(text.count(name) > 1 for name in often)), LINES_CHECKED))


def _notes_on_duplicate_keys(texts: list[bytes]) -> list[str]:
    """Notes on keys that occur twice in one of these lines."""
    duplicate_keys: dict[str, None] = {}
    for text in texts:
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(text, object_pairs_hook=lambda pairs: object_noting_duplicates(pairs, duplicate_keys))
    return duplicate_key_notes(duplicate_keys)


def _parse_lines(data: bytes, texts: list[bytes], numbers: Sequence[int], done: int) -> Block:
    """A block from lines. data: all of them. numbers: of each in the file."""
    if not _has_long_number(data):
        with contextlib.suppress(orjson.JSONDecodeError):
            rows = list(map(orjson.loads, texts))
            for n, row in enumerate(rows):  # a column that is a number whose digits orjson drops gets them back
                if type(row) is dict and float in map(type, row.values()) and LOSES_DIGITS.search(texts[n]):
                    rows[n] = _loads(texts[n])
            return Block(rows, list(numbers), done)
    return _parse_line_by_line(texts, numbers, done)


def _loads(text: bytes | str) -> Any:
    return json.loads(text, parse_float=written_float)


def _has_long_number(text: bytes) -> bool:
    """Whether as many digits as in LONG_NUMBER follow one another; every tenth byte mostly tells that none do."""
    digits = np.frombuffer(text, np.uint8)[::10] - np.uint8(ord("0")) < 10
    return bool((digits[1:] & digits[:-1]).any()) and LONG_NUMBER in text.translate(DIGITS_AS_ZEROS)


def _parse_line_by_line(texts: list[bytes], numbers: Sequence[int], done: int) -> Block:
    block = Block(done=done)
    for line, text in zip(numbers, texts, strict=True):
        text = text.strip(b" \t\r\n\x00\x1e" if line > 1 else b" \t\r\n\x00\x1e\xef\xbb\xbf")
        if not text:
            continue
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            _parse_with_json(block, text, line, error)
        else:
            inexact = _has_long_number(text) or LOSES_DIGITS.search(text)
            block.add(_loads(text) if inexact else value, line)
    return block


def _parse_with_json(block: Block, text: bytes, line: int, error: orjson.JSONDecodeError) -> None:
    """What orjson refuses and the json module reads: NaN, half surrogates."""
    try:
        block.add(_loads(text), line)
    except UnicodeDecodeError as broken:
        value = text.decode(errors="replace")
        block.add_bad(
            line,
            "encoding",
            value,
            f"Line {line} holds bytes that are not UTF-8 (byte {broken.start + 1} of the line).",
        )
    except (ValueError, RecursionError):
        repaired, repairs = repair(text.decode(errors="surrogateescape").rstrip(", \t"))
        with contextlib.suppress(ValueError, RecursionError):
            if repaired.strip():
                block.add(_loads(repaired), line)
            block.notes.append(f"Some lines are not strict JSON: {', '.join(repairs or COMMAS)}.")
            return
        block.add_bad(
            line,
            "not_json",
            text.decode(errors="replace"),
            f"Line {line} is not JSON: {error.msg} at character {error.colno}.",
        )
