"""An HTML page in another language, by the tables of words: each of its texts, and an image's label."""

from __future__ import annotations

import html
from html.parser import HTMLParser

from studio.ui import words

TAGS = {"zh": "zh-CN"}


def translated(page: str, lang: str) -> str:
    """The page with its texts in `lang`; what stands inside an element with translate="no" stays as it is.

    A text that has no translation stays English. The page must close what it opens, as those made here do.
    """
    if not words.table(lang):
        return page
    translator = _Translator(lang)
    translator.feed(page)
    translator.close()
    return "".join(translator.parts).replace('<html lang="en">', f'<html lang="{TAGS.get(lang, lang)}">', 1)


class _Translator(HTMLParser):
    CDATA_CONTENT_ELEMENTS = ("script", "style")

    def __init__(self, lang: str) -> None:
        super().__init__(convert_charrefs=True)
        self.lang = lang
        self.parts: list[str] = []
        self.kept: list[str] = []  # tags open since, and with, one that is not translated

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text = self.get_starttag_text() or ""
        if self.kept or ("translate", "no") in attrs:
            self.kept.append(tag)
        elif label := dict(attrs).get("aria-label"):
            text = text.replace(html.escape(label), html.escape(self._say(label)), 1)
        self.parts.append(text)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parts.append(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        if self.kept:
            self.kept.pop()
        self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.kept and self.kept[-1] in self.CDATA_CONTENT_ELEMENTS:
            self.parts.append(data)
        else:
            self.parts.append(html.escape(data if self.kept else self._say(data)))

    def handle_decl(self, decl: str) -> None:
        self.parts.append(f"<!{decl}>")

    def _say(self, text: str) -> str:
        inner = text.strip()
        return text.replace(inner, words.translate(inner, self.lang), 1) if inner else text
