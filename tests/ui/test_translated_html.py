"""A run's report in another language: every word of the studio's own, nothing of the user's."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from studio import run
from studio.export.report import report
from studio.run import Run
from studio.ui import races, words
from studio.ui.translated_html import translated
from tests.ui.fakes import FakeRun
from tests.ui.test_races import raced

OTHERS = [lang for lang in words.LANGUAGES if lang != "en"]
# what is written in Latin letters in Chinese too: names of figures, methods, tasks and units
NAMES = re.compile(
    r"\b[a-z]+\.[a-z_]+\b|\b(LoRA|BLEU|chrF|ROUGE-L|F1|JSON|KL|GiB|MiB|DPO|lm-eval|acc(_norm)?|exact_match|arc_easy|opposites|rank|lora"
    r"|yaml|three|lines|rows|json|tiny|base|told|sft|dpo)\b|Stopped at step 2: <its> .*"
)


class Texts(HTMLParser):
    """The texts of a page outside of what is not translated."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.kept: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta" and (self.kept or ("translate", "no") in attrs):
            self.kept.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.kept:
            self.kept.pop()

    def handle_data(self, data: str) -> None:
        if not self.kept and data.strip():
            self.texts.append(data.strip())


def finished(**fields: str) -> Run:
    fake = FakeRun(f"2026-11-20-1000-{fields.get('stage', 'sft')}-told", steps=40, **fields)
    fake.start(alive=False)
    fake.say("note", level="warning", text="A little of what the base knew is lost.", hint="")
    fake.train().finish()
    if not fields:
        fake.evaluated().benchmarked()
    return run.find(fake.folder.name)


@pytest.fixture
def order_yaml(home: Path, tiny_model: Path, tiny_data: Path) -> str:
    return f'{{"model": "{tiny_model}", "data": {{"train": "{tiny_data}"}}}}'


@pytest.fixture
def reports(home: Path, order_yaml: str) -> list[str]:
    race = run.find(races.start_race(order_yaml, ["method.rank=2,4"])["run"])
    raced(race)
    return [report(finished()), report(finished(stage="dpo")), report(race)]


def test_rows_that_were_left_out_are_told_with_their_reason(reports: list[str]) -> None:
    for page in reports[:2]:
        assert "<td>A field this format needs is empty.</td><td>dropped: 2 (3, 17)</td>" in page
        assert "held out, not measured on: 1 (40)" in page


@pytest.mark.parametrize("lang", OTHERS)
def test_every_text_of_a_report_has_a_translation(reports: list[str], lang: str) -> None:
    left = {text for page in reports for text in Texts(translated(page, lang)).texts}
    untranslated = sorted(text for text in left if re.search("[A-Za-z]{3}", NAMES.sub("", text)))
    assert not untranslated, "\n".join(untranslated)


@pytest.mark.parametrize("lang", OTHERS)
def test_what_is_the_user_s_stays(reports: list[str], lang: str) -> None:
    """A question that is a sentence of the page's own is shown as it was asked."""
    page = '<html lang="en"><h2>Samples</h2><p translate="no"><b>Samples</b> &lt;i&gt;</p><p>Samples</p></html>'
    said = words.say("Samples", lang)
    assert translated(page, lang) == page.replace("Samples</h2>", f"{said}</h2>").replace(
        "<p>Samples", f"<p>{said}"
    ).replace('"en"', '"zh-CN"')
    assert translated(page, "en") == page
    for page in reports:
        assert re.findall(r"<[^>]*>", translated(page, "en")) == re.findall(r"<[^>]*>", page)
