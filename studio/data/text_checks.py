"""What is suspicious in a text: placeholders, control tokens, secrets, broken letters, HTML, answers that break off.

All texts of a block lie end to end in one buffer. One pass over its bytes marks the few signs that any of these faults
must contain; only texts with such a sign are looked at by the regular expressions. That is what makes a million rows
cost a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

MAX_TEXT_CHARACTERS = 100_000  # characters of one text: absurd
NOTHING = frozenset(  # as programs write it; \N: a database's; with #: a spreadsheet's errors
    ("nan", "none", "null", "\\n", "nat", "n/a", "n.a.", "<na>", "nil", "(null)", "#n/a", "#ref!", "#name?", "#value!",
     "#div/0!", "#num!", "#null!", "#error!")
)  # fmt: skip
CONTROL_BYTES = [*range(0, 9), 11, 12, *range(14, 32), 127]
SUSPICIOUS_BYTES = bytes(1 if b in b"{$<@&[\r_JKz-\\\xc3\xef" or b in CONTROL_BYTES else 0 for b in range(256))

FENCE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
PLACEHOLDER = re.compile(
    r"\{\{\s*[\w .:-]{1,60}\s*\}\}|\$\{\w{1,40}\}|<%=?\s*\w{1,40}\s*%>|\[(?:YOUR|INSERT|ENTER|Your|Insert|Enter)[ "
    r"_][^\]\n]{1,40}\]"
)
CONTROL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>"
    r"|<(?:bos|eos|pad|unk)>"
)
MEDIA = re.compile(
    r"<(?:image|img|audio|video|speech)(?:_\d+)?>|<\|(?:image|vision|audio|video)[^|<>\n]{0,30}\|>|<image_placeholder>",
    re.IGNORECASE,
)
SECRET = re.compile(
    r"[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{2,24}){1,4}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|\bgithub_pat_\w{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bxox[abpr]-[\w-]{10,}|-----BEGIN [A-Z ]{0,30}PRIVATE "
    r"KEY|\bhf_[A-Za-z0-9]{20,}|\bAIza[\w-]{30,}"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}|\b(?:api|secret|access)_(?:key|token)\s*[:=]\s*\S{8,}"
)
HTML = re.compile(
    r"</?(?:p|div|span|br|a|b|i|em|strong|li|ul|ol|table|tr|td|th|h[1-6]|img|script|style|font|body|html)"
    r"(?:\s[^<>]{0,300})?/?>"
    r"|&(?:amp|lt|gt|nbsp|quot|apos|#\d{2,5}|#x[0-9a-fA-F]{2,5});",
    re.IGNORECASE,
)
MOJIBAKE = re.compile(r"\ufffd|[ÃÂ][\x80-\xbf]|â€[\x80-\xbf“”™˜œ\u009d]?|Ã[ƒ¢§±¶¼¤Ÿ©¨]|ï»¿")
LITERAL_BREAK = re.compile(r"\\r?\\n|\\n\\n|[.!?:,;。！？：，；]\\n(?![a-z])|\\n(?=[-*•#\d])")  # LaTeX has \neq, \nu
# of a letter that JSON wrote as \\u00e9, and that was written as JSON once more
LITERAL_ESCAPE = re.compile(
    r"(?i:[a-z]\\u00[c-f][0-9a-f]|\\u00[c-f][0-9a-f][a-z])|(?:\\u(?:0[3-9a-f]|[3-9a-d][0-9a-f])[0-9a-f]{2}){2}"
)
QUOTED = re.compile(r'"[^"\n]*"')
THOUGHT = re.compile(r"<(/?)(think|thinking|thought|reasoning)>")
INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
SENTENCE = re.compile(r"(?<!^\w)[.!?][\s\"')]|[。！？]", re.MULTILINE)  # but not the mark of a choice: A. Venus
LIST_LINE = re.compile(r"\s*(?:[-*•#|>+]|\d+[.)]|https?://)")


class Hit(NamedTuple):
    """A fault in the text with this index, and the place in short."""

    kind: str
    text: int
    value: str


def scan(data: bytes, ends: np.ndarray, answers: np.ndarray) -> Iterator[Hit]:
    """Faults of the texts data[ends[i-1]:ends[i]]. answers: which texts an assistant wrote (bool, one per text)."""
    buffer = np.frombuffer(data, np.uint8)
    for kind, positions, pattern in _candidates(data, buffer):
        for i in np.unique(np.searchsorted(ends, positions, side="right")).tolist():
            text = _text(data, ends, i)
            excerpt = pattern(text)
            if excerpt and (answers[i] or kind != "odd_reasoning"):
                yield Hit(kind, i, excerpt)
    starts = np.concatenate(([0], ends[:-1]))
    for i in np.flatnonzero(ends - starts > MAX_TEXT_CHARACTERS).tolist():
        yield Hit(
            "too_long",
            i,
            f"{ends[i] - starts[i]:,} bytes: {data[starts[i] : starts[i] + 160].decode(errors='replace')}",
        )
    yield from _nearly_empty(data, ends, starts, answers)
    for i in _unterminated(buffer, starts, ends, answers).tolist():
        text = _text(data, ends, i)
        if is_unfinished(text):
            yield Hit("unfinished", i, "… " + text[-70:])


@lru_cache(maxsize=64)
def _byte_set(signs: bytes) -> np.ndarray:
    """Which of the 256 byte values are among these."""
    return np.isin(np.arange(256, dtype=np.uint8), np.frombuffer(signs, np.uint8))


def _text(data: bytes, ends: np.ndarray, i: int) -> str:
    return data[(ends[i - 1] if i else 0) : ends[i]].decode(errors="replace")


def _candidates(data: bytes, buffer: np.ndarray) -> Iterator[tuple[str, np.ndarray, Callable[[str], str]]]:
    """(kind, positions of signs that such a fault needs, the function that makes sure)."""
    p = np.flatnonzero(np.frombuffer(data.translate(SUSPICIOUS_BYTES), np.bool_))
    if not len(p):
        return
    byte, after, before = buffer[p], buffer[np.minimum(p + 1, len(buffer) - 1)], buffer[np.maximum(p - 1, 0)]
    third = buffer[np.minimum(p + 2, len(buffer) - 1)]

    def at(sign: str) -> np.ndarray:
        return byte == ord(sign)

    def one_of(values: np.ndarray, signs: bytes) -> np.ndarray:
        return _byte_set(signs)[values]

    brace, tag, bracket = at("{") | at("$"), at("<"), at("[")
    letter = ((after | 32) >= 97) & ((after | 32) <= 122)
    placeholder = (brace & (after == 123)) | (tag & (after == 37)) | (bracket & one_of(after, b"YIEyie"))
    rules = (
        ("placeholder", placeholder, _first(PLACEHOLDER, in_code=False)),
        ("control_token", (tag & one_of(after, b"|s/bepu<\xef")) | (bracket & one_of(after, b"I/")), _first(CONTROL)),
        ("media", tag & one_of(after, b"iavsIAVS|"), _first(MEDIA)),
        ("odd_reasoning", tag & one_of(after, b"/tr"), _unpaired),
        ("html", (tag & (letter | (after == 47))) | (at("&") & (letter | (after == 35))), _first(HTML, in_code=False)),
        ("secret", _secret_signs(at, one_of, before, after), _masked),
        (
            "mojibake",
            ((byte == 0xC3) & one_of(after, b"\x82\x83\xa2\xaf"))
            | ((byte == 0xEF) & (after == 0xBF) & (third == 0xBD)),
            _first(MOJIBAKE),
        ),
        ("bom", (byte == 0xEF) & (after == 0xBB) & (third == 0xBF), lambda text: "U+FEFF" if "\ufeff" in text else ""),
        ("nul", one_of(byte, bytes(CONTROL_BYTES)), _code_point),
        ("literal_break", at("\\") & one_of(after, b"nr"), _literal_break),
        ("literal_escape", at("\\") & (after == ord("u")), _literal_escape),
        ("crlf", byte == 13, lambda text: "CR LF" if "\r" in text else ""),
    )
    for kind, where, pattern in rules:
        if where.any():
            yield kind, p[where], pattern


def _secret_signs(at: Callable, one_of: Callable, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (
        (at("@") & (before > 45) & (after > 45))
        | (at("-") & one_of(before, b"kbpar-") & (after != 32) & (one_of(before, b"kbpar") | (after == 66)))
        | (at("_") & one_of(before, b"pousrftbeis"))
        | (at("J") & (before == ord("y")))
        | (at("K") & (before == ord("A")))
        | (at("z") & (before == ord("I")))
    )


def _first(pattern: re.Pattern[str], in_code: bool = True) -> Callable[[str], str]:
    """The first match in a text. in_code: also between backticks, where tags and braces may well stand."""

    def excerpt(text: str) -> str:
        match = pattern.search(text)
        if match and not in_code and "`" in text:
            match = pattern.search(FENCE.sub(" ", text))
        return match.group() if match else ""

    return excerpt


def _literal_break(text: str) -> str:
    """The two signs of a line break that were never made one; none where the text has real ones, as code has."""
    return "" if "\n" in text else _first(LITERAL_BREAK, in_code=False)(text)


def _literal_escape(text: str) -> str:
    """The first letter written as six signs; in quotation marks it may be code."""
    return _first(LITERAL_ESCAPE, in_code=False)(QUOTED.sub("", text))


def _unpaired(text: str) -> str:
    """The first mark of reasoning without its partner, or the last one where no answer follows it; else ""."""
    opened: re.Match[str] | None = None
    for mark in THOUGHT.finditer(FENCE.sub(" ", text) if "`" in text else text):
        if bool(mark[1]) != bool(opened) or (opened and opened[2] != mark[2]):
            return (opened or mark)[0]
        opened = None if mark[1] else mark
    if opened:
        return opened[0]
    return "</think>" if text.rstrip().endswith("</think>") else ""


def _masked(text: str) -> str:
    """The secret, all but its first letters hidden: a report must not spread it."""
    match = SECRET.search(text)
    if not match:
        return ""
    secret = match.group()
    visible = secret[0] + "…@" + secret.partition("@")[2] if "@" in secret else secret[:4] + "…"
    return f"{visible} ({len(secret)} characters)"


def _code_point(text: str) -> str:
    match = INVISIBLE.search(text)
    return f"U+{ord(match.group()):04X}" if match else ""


def _nearly_empty(data: bytes, ends: np.ndarray, starts: np.ndarray, answers: np.ndarray) -> Iterator[Hit]:
    for i in np.flatnonzero(ends - starts <= 8).tolist():
        text = _text(data, ends, i).strip()
        if text.lower() in NOTHING:
            yield Hit("nan_text", i, text)
        elif len(text) == 1 and answers[i]:
            yield Hit("too_short", i, text)


def _unterminated(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Answers of at least 40 bytes that end in a letter, a comma or an open bracket."""
    long = np.flatnonzero(answers & (ends - starts >= 40))
    last = buffer[ends[long] - 1]
    latin = (((last | 32) >= 97) & ((last | 32) <= 122)) | _byte_set(b",;(-")[last]
    lead = buffer[ends[long] - 3]
    return long[latin | ((last >= 0x80) & (lead >= 0xE4) & (lead <= 0xE9))]


def is_unfinished(text: str) -> bool:
    """Whether an answer stops in mid-sentence: it has sentences, and its last line is prose without an end."""
    text = text.rstrip()
    if not text or text.count("```") % 2 or not SENTENCE.search(text[:-1]):
        return False
    line = text[text.rfind("\n") + 1 :]
    if LIST_LINE.match(line) or "://" in line[-80:]:
        return False
    return len(line.split()) >= 6 or (not line.isascii() and len(line) >= 12)
