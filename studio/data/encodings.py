"""The encoding of a text file. Where it is not sure, the file is refused, and the choices are shown."""

from __future__ import annotations

import codecs
import re
from typing import Any

from studio.errors import DataError

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# what files of today are written in; the codecs' own names, so that no two stand for one table
CANDIDATES = [
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp866", "cp1253", "cp1254", "cp1255", "cp1256", "cp1258", "cp874",
    "gb18030", "big5", "cp932", "euc_jp", "cp949", "mac_roman"
]  # fmt: skip
WESTERN_LETTERS = frozenset("äöüÄÖÜßàâæçéèêëîïôœùûÿÀÂÆÇÉÈÊËÎÏÔŒÙÛáíóúñÁÍÓÚÑ¿¡ãõÃÕåøÅØìòÌÒ’‘“”„–—…«»€£©®°·•\xa0½¼²³´§")
MISPLACED = re.compile(
    r"(?<=[^\W\d_])(?:[¹²³§©®¶¸¤¦¯´¨¬¥¢£±×÷¼½¾†‡‰™](?![\s.,;:!?)])|[¹³¶¸¤¦¯¨¬])|(?<=[а-яёα-ωà-ÿ])[А-ЯЁΑ-ΩÀ-Ý]"
)
MULTIBYTE = ("gb18030", "big5", "cp932", "euc_jp", "cp949")
SAMPLE_BYTES = 20_000  # bytes judged
MIN_LEAD = 0.05  # of charset-normalizer's measure of mess; a second reading within it is as likely


def encoding_of(head: bytes, name: str, whole: bool) -> str:
    """utf-8 (also where single lines are broken), utf-16 and utf-32, or an older one where it is sure.

    whole: head is all of the file. Raises DataError where several encodings are as likely and would read different
    letters.
    """
    for byte_order_mark, encoding in BYTE_ORDER_MARKS:
        if head.startswith(byte_order_mark):
            return encoding
    if utf16 := _utf16_without_mark(head):
        return utf16
    lines = [
        line for line in (head if whole else head.rpartition(b"\n")[0] or head[:-4]).split(b"\n") if not line.isascii()
    ]
    broken = [line for line in lines if not _decodes(line, "utf-8")]
    if len(broken) * 2 <= len(lines):
        return "utf-8"
    sample = b"\n".join(lines)
    if len(sample) > SAMPLE_BYTES:
        sample = sample[:SAMPLE_BYTES].rpartition(b"\n")[0] or sample[:SAMPLE_BYTES]
    if len(lines) == 1 and head[:1] in (b"{", b"[") and not _decodes(sample, "gb18030"):
        return "utf-8"  # a file of one line, broken somewhere
    if _is_western(sample):
        return "cp1252"
    return _by_letters(sample, name)


def check_encoding(encoding: str) -> str:
    """The codec's name. Raises DataError for one that Python does not know."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        known = ", ".join(["utf-8", "utf-16", *CANDIDATES])
        hint = f"Such as: auto, {known}."
        raise DataError(f"There is no encoding named {encoding!r}.", hint, "data.encoding") from None


def _utf16_without_mark(head: bytes) -> str | None:
    """UTF-16 without a mark: every second byte of Latin letters is zero."""
    first, second = head[:4000:2], head[1:4000:2]
    if not second or b"\x00" not in head[:4000]:
        return None
    shares = first.count(0) / len(first), second.count(0) / len(second)
    if max(shares) < 0.3 or min(shares) > 0.02:
        return None
    encoding = "utf-16-le" if shares[1] > shares[0] else "utf-16-be"
    return encoding if _decodes(head[: len(head) // 2 * 2], encoding) else None


def _is_western(sample: bytes) -> bool:
    """Does all of it read as words of Western Europe, with single accents between plain letters?"""
    if not _decodes(sample, "cp1252"):
        return False
    text = sample.decode("cp1252", errors="replace")
    if not set(filter(lambda char: char > "\x7f", text)) <= WESTERN_LETTERS:
        return False
    runs = re.findall(r"[^\W\d_]+", text)
    mixed = sum(1 for word in runs if not word.isascii() and sum(char > "\x7f" for char in word) * 2 <= len(word) + 1)
    return mixed >= 0.9 * sum(not word.isascii() for word in runs)


def _by_letters(sample: bytes, name: str) -> str:
    from charset_normalizer import from_bytes  # late: a tenth of a second, and seldom needed

    matches = list(from_bytes(sample, cp_isolation=CANDIDATES, enable_fallback=False))
    least = min((_misplaced_share(str(match)) for match in matches), default=0)
    matches = [match for match in matches if _misplaced_share(str(match)) <= least + MIN_LEAD]
    runs = re.findall(rb"[\x80-\xff]+", sample)
    if len(runs) > 2 and all(len(run) % 2 == 0 for run in runs):  # two bytes a letter: single ones do not always pair
        unlikely = _unlikely_multibyte(runs)
        matches = [match for match in matches if match.encoding in MULTIBYTE and match.encoding != unlikely]
    if not matches:
        raise _ambiguous(sample, [encoding for encoding in CANDIDATES if _decodes(sample, encoding)][:4], name)
    best = matches[0]
    rivals = [
        match
        for match in matches[1:]
        if str(match) != str(best)
        and match.chaos - best.chaos < MIN_LEAD
        and best.coherence - match.coherence < 2 * MIN_LEAD
    ]
    if not rivals and best.chaos <= 0.2:
        return best.encoding
    likeliest = [match.encoding for match in (best, *rivals)]
    for match in matches:
        if match.encoding in ("euc_jp", "cp932") and _is_mostly_kana(str(match)):
            if {"gb18030", "big5", "cp949", match.encoding}.issuperset(likeliest):
                return match.encoding
            break
    raise _ambiguous(sample, likeliest[:4], name)


def _unlikely_multibyte(runs: list[bytes]) -> str:
    """The codec, Chinese or Korean, that it is not: first bytes of Hangul end at C8, those of Chinese at F7."""
    first = [byte for run in runs for byte in run[::2] if byte >= 0xB0]
    beyond = sum(byte > 0xC8 for byte in first)
    if beyond * 10 > len(first):
        return "cp949"
    return "gb18030" if beyond * 50 < len(first) else ""


def _misplaced_share(text: str) -> float:
    """The share of non-ASCII characters where no language has them: capitals inside a word, signs between letters."""
    return len(MISPLACED.findall(text)) / max(1, sum(char > "\x7f" for char in text))


def _is_mostly_kana(text: str) -> bool:
    letters = [char for char in text if char > "\x7f"]
    return sum("\u3040" <= char <= "\u30ff" for char in letters) * 10 > len(letters)


def _ambiguous(sample: bytes, encodings: list[str], name: str) -> DataError:
    line = sample.split(b"\n")[0][:60]
    shown = "; ".join(
        f"{encoding}: {' '.join(line.decode(encoding, errors='replace').split())}" for encoding in encodings
    )
    return DataError(
        f"{name} is not written in UTF-8, and it is not sure in what. It would read {shown}."
        if shown
        else f"{name} is not written in UTF-8.",
        "Say which one is right: --encoding NAME, or data.encoding in the order; or save the file as UTF-8.",
        "data.encoding",
    )


def _decodes(data: bytes, encoding: str) -> Any:
    try:
        codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    return True
