"""The page's own scripts, alone in a browser: what a track keeps, how it smooths, that an answer never becomes HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from studio.ui import assets, words
from studio.ui.tail import COLUMNS
from tests.browser import browser, chromium_path

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium_path() is None, reason="no Chromium on this computer")]
SCRIPTS = (
    *assets.LIBRARIES,
    "words.js",
    "elements.js",
    "page.js",
    "live.js",
    "axis.js",
    "chart.js",
    "paint.js",
    "bar.js",
    "curves.js",
    "markdown.js",
)


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with browser() as opened:
        made = opened.new_page()
        made.set_content("<body></body>")
        made.add_script_tag(content=words.script())
        for name in SCRIPTS:
            made.add_script_tag(content=assets.read(name))
        yield made


def part(losses: list[float | None], start: int = 0, fresh: bool = True) -> dict[str, Any]:
    count = len(losses)
    columns = [
        [start + at + 1 for at in range(count)] if name == "step" else losses if name == "loss" else [0.0] * count
        for name in COLUMNS
    ]
    return {
        "id": "r",
        "generation": "1.0",
        "fresh": fresh,
        "start": start,
        "points": start + count,
        "stride": 1,
        "names": list(COLUMNS),
        "columns": columns,
        "others": [],
        "next": 0,
        "status": {},
        "checkpoints": [],
        "more": False,
    }


def unbiased(values: list[float | None], weight: float) -> list[float]:
    """An exponential moving average divided by the sum of its weights, unknown values passed over."""
    total = share = 0.0
    found = []
    for value in values:
        if value is not None:
            total, share = weight * total + (1 - weight) * value, weight * share + (1 - weight)
        found.append(total / share if share else math.nan)
    return found


def smoothed(page: Any, parts: list[dict[str, Any]], weight: float) -> list[float]:
    return page.evaluate(
        """([parts, weight]) => { studio.live.tracks.delete("r"); const track = studio.live.track("r");
        let values; for (const part of parts) { track.take(part); values = track.smooth("loss", weight); }
        return Array.from(values.subarray(0, track.n)); }""",
        [parts, weight],
    )


def test_smoothing_as_points_arrive_equals_the_formula(page: Any) -> None:
    losses = [3.0, 2.0, None, 2.5, 1.0, 1.5]
    assert smoothed(page, [part(losses)], 0.8) == pytest.approx(unbiased(losses, 0.8))
    assert smoothed(page, [part(losses[:2]), part(losses[2:], start=2, fresh=False)], 0.8) == pytest.approx(
        unbiased(losses, 0.8)
    )


def test_a_fresh_answer_starts_over(page: Any) -> None:
    assert smoothed(page, [part([9.0, 9.0, 9.0]), part([1.0])], 0.0) == [1.0]


def test_a_long_curve_is_smoothed_over_the_same_share_of_its_width(page: Any) -> None:
    losses = [float(at % 2) for at in range(4000)]
    assert smoothed(page, [part(losses)], 0.8)[-1] == pytest.approx(unbiased(losses, 0.8**0.25)[-1])


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "**<script>alert(1)</script>**",
        "[click](javascript:alert(1))",
        "```html\n<b>x</b>\n```",
        "| a | b |\n|---|---|\n| <i>x</i> | y |",
        "> <u>x</u>",
    ],
)
def test_an_answer_never_becomes_html(text: str, page: Any) -> None:
    made = page.evaluate(
        (
            "text => { const box = document.createElement('div'); box.append(...studio.markdown(text)); "
            "return box.innerHTML; }"
        ),
        text,
    )
    for tag in ("<img", "<script", "<b>", "<i>", "<u>", 'javascript:alert(1)"'):
        assert tag not in made


@pytest.mark.parametrize(
    "text",
    [
        "<svg onload=alert(1)>",
        '<a href="https://a.test" onclick=alert(1)>x</a>',
        "[x](data:text/html,<b>)",
        "[x](JaVaScRiPt:alert(1))",
        "[x](vbscript:a)",
        "![x](https://a.test/pixel.png)",
        '<https://a.test/"onmouseover=alert(1)>',
        "[a]: javascript:alert(1)\n\n[a]",
        '```" onload=x\ny\n```',
        "&#60;b&#62;",
        '[x](https://a.test "a" onclick=b)',
        "<style>*{}</style>",
        "<!-- x -->",
        "<iframe srcdoc='<b>'>",
        "https://a.test/<b>",
    ],
)
def test_only_a_few_harmless_elements_come_of_an_answer(text: str, page: Any) -> None:
    made = page.evaluate(
        """text => { const box = document.createElement('div'); box.append(...studio.markdown(text));
        return [...box.querySelectorAll('*')].map((node) => [node.tagName,
          Object.fromEntries([...node.attributes].map((one) => [one.name, one.value]))]); }""",
        text,
    )
    for tag, attributes in made:
        assert tag in ("P", "A", "PRE", "CODE", "BR", "STRONG", "EM"), text
        assert set(attributes) <= {"href", "target", "rel", "tabindex", "class"}, text
        assert attributes.get("href", "https://").startswith(("https://", "http://")), text


@pytest.mark.parametrize(
    "text",
    [
        ">" * 5000,
        "> " * 5000 + "x",
        "- " * 5000 + "x",
        "[" * 20000,
        "*" * 20000 + "a",
        "`" * 20001,
        "(" * 5000 + "[x](" * 5000,
        "|a" * 5000 + "\n" + "|-" * 5000,
        "**a " * 5000,
        "<" * 20000,
        "\n".join(" " * n + "- x" for n in range(1000)),
        "x" * 300_000,
    ],
)
def test_no_answer_overflows_the_page(text: str, page: Any) -> None:
    """The page's own Markdown called itself for every sign of a quotation, and 5,000 of them ended it."""
    page.set_default_timeout(20_000)
    length = page.evaluate(
        (
            "text => { const box = document.createElement('div'); box.append(...studio.markdown(text)); "
            "return box.textContent.length; }"
        ),
        text,
    )
    assert length >= 0


def test_markdown_is_drawn(page: Any) -> None:
    text = "# A\n\n**b** *c* `d`\ne\n\n1. x\n2. y\n\n> q\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nf()\n```\n[l](https://a.test)"
    made = page.evaluate(
        (
            "text => { const box = document.createElement('div'); box.append(...studio.markdown(text)); "
            "return box.innerHTML; }"
        ),
        text,
    )
    for part in (
        '<p class="said-head said-head-1">A</p>',
        "<strong>b</strong>",
        "<em>c</em>",
        "<code>d</code><br>",
        "<ol>",
        "<blockquote>",
        "<td>2</td>",
        '<pre tabindex="0"><code>f()',
        'href="https://a.test" target="_blank"',
    ):
        assert part in made, part


def test_thoughts_are_folded_while_they_are_written_and_after(page: Any) -> None:
    assert page.evaluate("studio.thoughts('<think>hm')") == {"thoughts": "hm", "text": "", "open": True}
    assert page.evaluate("studio.thoughts('<think>hm</think> yes')") == {"thoughts": "hm", "text": "yes", "open": False}


def test_a_table_of_numbers_has_no_formula(page: Any) -> None:
    """Spreadsheets run cells that begin with = + - @."""
    text = page.evaluate(
        """async part => { let saved; const save = studio.save; studio.save = (blob) => { saved = blob; };
        const curves = new studio.Curves(), track = studio.live.track("=HYPERLINK(1)"); track.take(part);
        curves.entries = [{ track, label: "x", place: 0 }]; curves.numbers(); studio.save = save;
        return saved.text(); }""",
        part([1.0, None]),
    )
    lines = text.splitlines()
    assert lines[0].startswith("run,step,epoch,loss,held_out_loss")
    assert lines[1].startswith('"\'=HYPERLINK(1)",1,0,1,')
    assert lines[2].startswith('"\'=HYPERLINK(1)",2,0,,')


@pytest.mark.parametrize(("stage", "first"), [("grpo", "reward"), ("dpo", "loss"), ("sft", "loss")])
def test_a_run_is_drawn_by_what_it_learns_before_its_first_step(page: Any, stage: str, first: str) -> None:
    """A run that earns rewards began with an empty chart of its loss."""
    keys = page.evaluate(
        """part => { const curves = new studio.Curves(), track = studio.live.track(part.status.stage); track.take(part);
        curves.entries = [{ track, label: "x", place: 0 }];
        return curves.offered().map(({ spec }) => spec.key).filter((key) => ["loss", "reward"].includes(key)); }""",
        part([]) | {"status": {"stage": stage}},
    )
    assert keys == [first]


@pytest.mark.parametrize(("low", "high"), [(1, 2), (0, 1), (1, 4), (1, 40), (0, 100_000)])
def test_marks_of_steps_are_whole_and_none_says_what_another_says(page: Any, low: int, high: int) -> None:
    marks = page.evaluate(f"studio.axis.ticks({low}, {high}, 12, 1)")
    assert all(mark == round(mark) for mark in marks)
    told = page.evaluate(
        f"studio.axis.labelled(studio.axis.ticks({low}, {high}, 12, 0), (at) => String(Math.round(at)))"
    )
    texts = [mark["text"] for mark in told]
    assert len(texts) == len(set(texts))


LANDING = """([query, rows, now, seen]) => {
  history.replaceState({}, "", query);
  let heard = null, opened = null;
  const live = { rows, now, at: 1000, listen: (what) => { heard = what; } };
  window.studio = { live, stored: () => seen, store: (key, value) => { seen = value; }, say: (text) => text,
    open: (tab, changes) => { opened = [tab, changes.run ?? null]; }, element: () => null };
  (0, eval)(window.newsScript);
  heard({ list: true });
  heard({ list: true });
  return [opened, seen];
}"""
OLD, NEW, FAILED = {"id": "old", "ended": 100}, {"id": "new", "ended": 900}, {"id": "bad", "ended": 800}


@pytest.mark.parametrize(
    ("query", "rows", "now", "seen", "opened"),
    [
        ("/", [NEW, OLD], [], None, ["runs", "new"]),  # a first visit: the newest run
        ("/", [{"id": "waits", "ended": None}, OLD], [], None, None),
        ("/", [NEW, OLD], [], "500", ["runs", "new"]),
        ("/", [NEW, FAILED, OLD], [], "500", ["runs", None]),  # several: their list
        ("/", [NEW, OLD], [], "950", None),  # seen already
        ("/", [NEW, OLD], [{"id": "live"}], "500", ["runs", "live"]),
        ("/?tab=tune", [NEW, OLD], [], None, None),  # a wish of one's own
        ("/", [], [], None, None),
    ],
)
def test_a_fresh_page_begins_with_what_has_ended(
    page: Any, query: str, rows: list[dict], now: list[dict], seen: str | None, opened: list | None
) -> None:
    fresh = page.context.browser.new_page()
    fresh.route("**/*", lambda route: route.fulfill(body="<body></body>", content_type="text/html"))
    fresh.goto("http://127.0.0.1/")
    fresh.evaluate("(text) => { window.newsScript = text; }", assets.read("news.js"))
    found, kept = fresh.evaluate(LANDING, [query, rows, now, seen])
    fresh.close()
    assert found == opened
    assert kept == "1000", "from now on it has been looked at"


def test_the_page_names_one_as_one_as_python_does(page: Any) -> None:
    said = "Row 1 rows; 1 of the first 1 rows look like Alpaca. In 1 minutes 1 processes were asked for 21 rows."
    page.evaluate("studio.language = 'en'")
    assert page.evaluate("said => studio.told(said)", said) == words.translate(said) != said
