"""The answer is written in a script: Latin, Chinese, Japanese, …"""

from __future__ import annotations

from typing import ClassVar, Literal

import regex
from pydantic import Field

from studio.evaluation.questions import Question
from studio.reward import Reward

# Unicode's scripts; kanji are Han. "common" letters (ー) are nobody's.
SCRIPTS = {
    "latin": "Latin",
    "chinese": "Han",
    "japanese": "Han Hiragana Katakana",
    "korean": "Hangul",
    "cyrillic": "Cyrillic",
    "arabic": "Arabic",
    "devanagari": "Devanagari",
    "greek": "Greek",
    "hebrew": "Hebrew",
    "thai": "Thai",
}
MARK = regex.compile(r"</?think>")  # of thinking, which is in a language itself
LETTER = regex.compile(r"\p{L}")
OF_SCRIPT = {
    name: regex.compile("[" + "".join(rf"\p{{Script={script}}}" for script in scripts.split()) + "]")
    for name, scripts in SCRIPTS.items()
}


class Language(Reward):
    """By the letters' Unicode scripts: languages that share one are not told apart."""

    name: Literal["language"] = Field("language", frozen=True, title="Reward", description="The script.")
    list_position: ClassVar[int] = 5
    label: ClassVar[str] = "Language, by its script"
    about: ClassVar[str] = "The share of the answer's letters that belong to the script; no letters at all give 0."

    script: Literal[
        "latin", "chinese", "japanese", "korean", "cyrillic", "arabic", "devanagari", "greek", "hebrew", "thai"
    ] = Field("latin", title="Script", description="Japanese counts kanji and kana, Chinese counts characters.")

    def score(self, text: str, question: Question) -> float:
        letters = LETTER.findall(MARK.sub("", text))
        return sum(OF_SCRIPT[self.script].match(letter) is not None for letter in letters) / max(1, len(letters))
