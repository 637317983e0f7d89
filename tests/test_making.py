"""Rows out of a document, against an endpoint with scripted replies: passages, marks, stop, going on, the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from studio import making
from studio.__main__ import main
from studio.errors import DataError, ModelError, OrderError
from studio.making.document import MAX_CHARS, passages, text_of
from studio.making.rows import marked, read_reply, small_note, words
from tests.test_judge import KEY, endpoint

DOCUMENT = """Before the first heading.

# Keeping bees

## Winter

Bees cluster in winter and live on forty pounds of honey.

```
# no heading
```

## Summer

蜂箱要放在向南的地方，每天检查一次。
"""


def _reply(prompt: str, _: int) -> tuple[int, str]:
    """A row that the passage supports, one that it does not, and the first again."""
    passage = prompt.partition("[Passage]\n")[2].partition("\n\nReply")[0]
    good = {"question": f"What is said of {passage[:20]}?", "answer": passage}
    bad = {"question": "Who keeps bees on the moon?", "answer": "Astronauts with purple helmets."}
    return 200, f"Here you are:\n```json\n{json.dumps([good, bad, good], ensure_ascii=False)}\n```"


@pytest.fixture
def document(home: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bees.md"
    path.write_text(DOCUMENT, encoding="utf-8")
    return path


def test_passages_follow_the_headings() -> None:
    found = passages(DOCUMENT)
    assert [part.heading for part in found] == ["", "Keeping bees › Winter", "Keeping bees › Summer"]
    assert "# no heading" in found[1].text


def test_a_title_before_the_first_heading_is_no_passage() -> None:
    assert [part.heading for part in passages("Bees, a handbook\n\n# Winter\n\nThey cluster.", "bees.docx")] == [
        "Bees, a handbook › Winter"
    ]


@pytest.mark.parametrize("text", ["word " * 4000, "一句话。" * 3000, "x" * 10_000, "A sentence.\n\n" * 900])
def test_long_sections_lose_nothing(text: str) -> None:
    parts = passages(text)
    assert all(len(part.text) <= MAX_CHARS + 80 for part in parts)
    assert re.sub(r"\s", "", "".join(part.text for part in parts)) == re.sub(r"\s", "", text)


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        ('[{"question": "a?", "answer": "b"}]', 1),
        ('<think>[1]</think> {"rows": [{"question": "a?", "answer": "b"}, {"question": "", "answer": "c"}]}', 1),
        ('{"question": "a?", "answer": "line\nline"}', 1),
        ("I cannot do that.", 0),
        ("[[[[[[", 0),
        ('[{"question": 1, "answer": 2}]', 0),
    ],
)
def test_what_is_read_out_of_a_reply(reply: str, count: int) -> None:
    assert len(read_reply(reply)) == count


def test_marks() -> None:
    text = "蜂箱要放在向南的地方，每天检查一次。"
    first = marked("蜂箱放在哪里？", "放在向南的地方。", 0, text, [])
    assert first.marks == ()
    assert marked("蜂箱放在哪里", "放在向南的地方。", 0, text, [first]).marks == ("repeat",)
    assert marked("Where?", "On the roof of the church", 0, text, [first]).marks == ("unsupported",)
    assert words("A2 a２") == {"a2"}


def test_small_models_are_told() -> None:
    for name in ("starter", "SmolLM2-135M-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "llama-360m"):
        assert small_note(name)
    for name in ("Qwen3-8B", "gpt-4.1-mini", "Llama-3.2-3B", "gpt-5", "qwen2.5-72b"):
        assert not small_note(name)


def test_every_row_stands_beside_its_passage(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(making.KEY, KEY)
    task = making.begin(document)
    with endpoint(_reply) as (url, seen):
        answer = making.write(task, making.order_of({"url": url, "model": "m", "per_minute": 6000}))
    assert (answer["rows"], answer["marked"], answer["passages"], answer["state"]) == (9, 6, 3, "done")
    rows = task.rows()
    assert [row.passage for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [row.marks for row in rows[:4]] == [(), ("unsupported",), ("repeat",), ()]
    assert rows[3].answer == task.passages()[1].text
    assert seen[0]["key"] == f"Bearer {KEY}"
    assert all(KEY not in file.read_text() for file in task.folder.iterdir())
    with endpoint(_reply) as (url, seen):
        making.write(task, making.order_of({"url": url, "model": "m", "per_minute": 6000}))
    assert not seen, "what is written is asked for no more"
    assert len(task.rows()) == 9


def test_a_stop_keeps_what_is_written_and_it_can_go_on(document: Path) -> None:
    task = making.begin(document)
    with endpoint(_reply) as (url, _):
        order = making.order_of({"url": url, "model": "m", "per_minute": 6000, "per_passage": 1})
        answer = making.write(task, order, lambda row: task.request_stop())
        assert (answer["state"], answer["rows"]) == ("stopped", 1)
        with task.rows_file.open("a") as torn:
            torn.write('{"question": "cut off by a full')
        assert making.write(task, order)["rows"] == len(task.rows()) == 3


def test_a_row_may_hold_every_kind_of_line_end(document: Path) -> None:
    """U+2028 and U+0085 stand in a JSON line as they are, and end no line."""
    task = making.begin(document)
    pair = json.dumps([{"question": "What\u2028is\x85said?", "answer": "Bees\u2029cluster"}], ensure_ascii=False)
    with endpoint(lambda prompt, _: (200, pair)) as (url, _):
        making.write(task, making.order_of({"url": url, "model": "m", "per_minute": 6000, "per_passage": 1}))
        assert {row.answer for row in task.rows()} == {"Bees\u2029cluster"}


def test_an_endpoint_that_refuses_is_told_once(document: Path) -> None:
    task = making.begin(document)
    with endpoint(lambda *_: (401, "no")) as (url, seen), pytest.raises(ModelError, match="status 401"):
        making.write(task, making.order_of({"url": url, "model": "m"}))
    assert len(seen) == 1
    assert "STUDIO_MAKE_KEY" not in json.dumps(task.status()) or task.status()["state"] == "failed"


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://169.254.169.254/v1", "model": "m"},
        {"url": "file:///etc/passwd", "model": "m"},
        {"url": "http://127.0.0.1:1/v1", "model": "m", "prompt": "no place"},
        {"url": "http://127.0.0.1:1/v1", "model": "m", "key": "sk"},
        {"url": "http://127.0.0.1:1/v1"},
    ],
)
def test_wrong_orders_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(OrderError):
        making.order_of(settings)


def test_documents_that_hold_no_text_are_refused(tmp_path: Path) -> None:
    for name, content in (
        ("a.md", b" \n"),
        ("b.bin", b"\x00\x01"),
        ("c.pdf", b"%PDF-1.4"),
        ("d.pdf", b"text"),
        ("e.docx", b"PK\x03\x04 cut off"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            text_of(tmp_path / name)


def test_the_command_leaves_marked_rows_out(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(_reply) as (url, _):
        order = ["make", str(document), "--endpoint", url, "--model", "m", "--per-minute", "6000", "--json"]
        assert main(order) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["rows"], answer["written"]) == (3, 9)
        lines = Path(answer["path"]).read_text(encoding="utf-8").splitlines()
        assert [set(json.loads(line)) for line in lines] == [{"question", "answer"}] * 3
        assert main(order) == 2, "the file that is there stays"


def test_a_folder_of_documents_is_one_set_and_what_cannot_be_read_is_told(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "manuals"
    (folder / ".git").mkdir(parents=True)
    for name, text in {
        "a.md": DOCUMENT,
        "b.txt": "Wasps sleep.",
        "c.pdf": "no PDF",
        "d.jpg": "",
        ".git/e.md": "x",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    with endpoint(_reply) as (url, seen):
        order = ["make", str(folder), "--endpoint", url, "--model", "m", "--per-minute", "6000", "--keep-marked"]
        assert main([*order, "--json"]) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert (answer["path"], answer["passages"], answer["rows"]) == (str(tmp_path / "manuals.rows.jsonl"), 4, 12)
    assert "c.pdf" in told.err
    assert "[Document]\nb.txt" in seen[-1]["messages"][0]["content"]
    assert main(["make", str(tmp_path / "none"), "--endpoint", url, "--model", "m"]) == 2


@pytest.mark.rare
def test_office_documents_are_read_by_markitdown(tmp_path: Path) -> None:
    pytest.importorskip("markitdown")
    import openpyxl
    from pptx import Presentation  # of markitdown[pptx]

    book = openpyxl.Workbook()
    book.active.title = "Hours"
    for row in (("Branch", "Saturday"), ("Harbour", "10-14")):
        book.active.append(row)
    book.save(tmp_path / "hours.xlsx")
    talk = Presentation()
    for title, text in (("Daily", "Rinse for ten seconds."), ("Weekly", "Soak for twenty minutes.")):
        slide = talk.slides.add_slide(talk.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, text
    talk.save(tmp_path / "care.pptx")
    assert "| Harbour | 10-14 |" in passages(text_of(tmp_path / "hours.xlsx"))[0].text
    assert passages(text_of(tmp_path / "care.pptx")) == [
        ("Daily", "Rinse for ten seconds.", ""),
        ("Weekly", "Soak for twenty minutes.", ""),
    ]
