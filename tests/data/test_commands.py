"""inspect, preview, templates and formats from the terminal: the answers as the surface promises them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio import data, template, template_check
from studio.__main__ import main
from studio.data.formats import formats
from studio.kernels import IGNORE_INDEX
from studio.tokens import Encoder
from tests.data.fixtures import ALPACA, QA, as_lines

PROBLEM = {"row", "line", "field", "kind", "severity", "value", "reason", "hint"}
TOKENS = {"min", "median", "p95", "max", "total", "trained", "over_limit", "histogram", "suggested_max_length"}


def said(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    """The one JSON document on standard output."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Five rows: sound, of the wrong type, with a placeholder, not JSON, sound and long."""
    rows = as_lines(
        [
            ALPACA[0],
            {"instruction": "Add 1 and 2.", "output": {"sum": 3}},
            {"instruction": "Who are you?", "output": "I am {{name}}."},
        ]
    )
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        rows
        + b'{"instruction": "a\n'
        + as_lines([{"instruction": "Count.", "input": "", "output": "one two three " * 60 + "end."}])
    )
    return str(path)


def test_inspect(file: str, home: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = said(["inspect", file, "--model", str(tiny_model), "--max-length", "64"], capsys)
    assert (answer["format"], answer["container"], answer["rows"], answer["refused"]) == ("alpaca", "jsonl", 5, 2)
    assert answer["fingerprint"] == data.read(file).fingerprint
    assert all(set(p) == PROBLEM for p in answer["problems"])
    found = {(p["kind"], p["row"], p["line"], p["severity"]) for p in answer["problems"]}
    assert {
        ("wrong_type", 2, 2, "refused"),
        ("placeholder", 3, 3, "suspicious"),
        ("not_json", 4, 4, "refused"),
    } <= found
    tokens = answer["tokens"]
    assert set(tokens) >= TOKENS
    encoder = Encoder(tiny_model, template.load("auto", tiny_model))
    encoded = [encoder.encode(one) for one in data.read(file).conversations]
    sizes = sorted(len(e.ids) for e in encoded)
    assert (tokens["min"], tokens["median"], tokens["max"], tokens["total"]) == (
        sizes[0],
        sizes[1],
        sizes[2],
        sum(sizes),
    )
    assert tokens["trained"] == sum(e.n_trained for e in encoded)
    assert (tokens["over_limit"], tokens["tokens_lost"]) == (1, sizes[2] - 64)
    assert sum(count for _, count in tokens["histogram"]) == 3


def test_inspect_without_a_model_at_hand(
    file: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.base import source
    from studio.errors import ModelError

    def none(*_: object, **__: object) -> Path:
        raise ModelError("The starter cannot be fetched.", "Connect.", "model")

    monkeypatch.setattr(source, "fetch", none)
    answer = said(["inspect", file], capsys)
    assert (answer["rows"], answer["tokens"]) == (5, None)
    assert (
        said(["inspect", file, "--model", "nobody/nothing"], capsys, 2)["error"]["message"]
        == "The starter cannot be fetched."
    )


@pytest.mark.parametrize("name", ["auto", "alpaca", "chatml", "qwen3"])
def test_preview(name: str, file: str, home: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = said(["preview", file, "--row", "1", "--model", str(tiny_model), "--template", name], capsys)
    assert {"conversation", "text", "tokens", "stop"} <= set(answer)
    assert [m["role"] for m in answer["conversation"]] == ["user", "assistant"]
    assert [m["content"] for m in answer["conversation"]] == list(QA[0])
    assert all({"id", "text", "trained"} <= set(token) for token in answer["tokens"])
    assert "".join(token["text"] for token in answer["tokens"]) == answer["text"]
    chosen = template.load(name, tiny_model)
    e = Encoder(tiny_model, chosen, 1024).encode(data.read(file).conversations[0])
    assert [token["id"] for token in answer["tokens"]] == e.ids
    assert [token["trained"] for token in answer["tokens"]] == [label != IGNORE_INDEX for label in e.labels]
    learnt = "".join(token["text"] for token in answer["tokens"] if token["trained"])
    assert learnt.endswith(QA[0][1] + answer["stop"][0])
    assert QA[0][0] not in learnt


def test_preview_marks_what_is_cut(file: str, home: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = said(["preview", file, "--row", "5", "--model", str(tiny_model), "--max-length", "40"], capsys)
    assert [n for n, token in enumerate(answer["tokens"]) if token.get("cut")] == list(range(40, len(answer["tokens"])))
    assert answer["over"] == len(answer["tokens"]) - 40


def test_preview_for_the_eye(file: str, home: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", file, "--row", "1", "--model", str(tiny_model)]) == 0
    shown = capsys.readouterr().out
    assert f"[user] {QA[0][0]}" in shown
    assert "<|im_end|>⟧" in shown
    assert main(["inspect", file, "--model", str(tiny_model)]) == 0
    shown = capsys.readouterr().out
    assert "alpaca in jsonl: 5 rows, 2 refused" in shown
    assert "wrong_type (refused)" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--row", "4"], "Row 4 .* was refused: not_json"),
        (["--row", "9"], "has no row 9"),
        (["--row", "1", "--max-length", "0"], "leaves no token"),
        (["--row", "1", "--template", "chatlm"], "no template named 'chatlm'"),
        (["--row", "1", "--format", "alpacca"], "no format named"),
        (["--row", "1", "--column", "frage"], "names no column"),
    ],
)
def test_preview_refuses_in_words(
    arguments: list[str], words: str, file: str, home: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = said(["preview", file, "--model", str(tiny_model), *arguments], capsys, 2)["error"]
    assert set(error) == {"message", "hint", "where"}
    assert error["hint"]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(error["message"])


def test_a_dataset_info_entry_and_columns_by_hand(
    home: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(as_lines([{"frage": q, "antwort": a} for q, a in QA]))
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"mine": {"file_name": "rows.jsonl", "columns": {"prompt": "frage", "response": "antwort"}}})
    )
    model = ["--model", str(tiny_model)]
    by_entry = said(["inspect", f"{tmp_path / 'dataset_info.json'}:mine", *model], capsys)
    by_hand = said(
        ["inspect", str(tmp_path / "rows.jsonl"), "--column", "prompt=frage", "--column", "answer=antwort", *model],
        capsys,
    )
    assert (
        (by_entry["format"], by_entry["rows"], by_entry["refused"])
        == (by_hand["format"], by_hand["rows"], by_hand["refused"])
        == ("alpaca", 3, 0)
    )
    assert by_entry["tokens"] == by_hand["tokens"]


def test_templates_and_formats(capsys: pytest.CaptureFixture[str]) -> None:
    listed = said(["templates"], capsys)
    assert [one["name"] for one in listed] == template.names()
    assert all(one["about"] and one["stop"] for one in listed)
    listed = said(["formats"], capsys)
    assert [one["name"] for one in listed] == list(formats())
    assert all(one["about"] and one["columns"] and one["stage"] in ("sft", "preference") for one in listed)


def test_bench(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = said(["bench", "data", "--rows", "300", "--format", "sharegpt", "--repeats", "1"], capsys)
    assert [(row["reader"], row["rows"]) for row in rows] == [("orjson", 300), ("pyarrow", 300), ("import", 300)]
    assert all(row["seconds"] > 0 and row["peak"] > 1 << 20 for row in rows)
    assert rows[2]["ratio"] == 1


def test_columns_not_used_and_notes_are_told(
    home: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "class.csv"
    path.write_text(
        "Our texts,,\nid,text,label\n" + "".join(f"{n},A sentence about {n} owls.,{n % 2}\n" for n in range(9)),
        encoding="utf-8",
    )
    answer = said(["inspect", str(path), "--model", str(tiny_model)], capsys)
    assert (answer["unused"], answer["encoding"]) == (["id", "label"], "utf-8")
    assert "Our texts" in answer["notes"][0]
    assert main(["inspect", str(path), "--model", str(tiny_model)]) == 0
    printed = capsys.readouterr().out
    assert "columns not used: id, label" in printed
    assert "--column prompt=text --column answer=label" in printed
    mapped = said(
        ["inspect", str(path), "--model", str(tiny_model), "--column", "prompt=text", "--column", "answer=label"],
        capsys,
    )
    assert (mapped["rows"], mapped["refused"], mapped["unused"]) == (9, 0, ["id"])


def test_an_encoding_is_named(home: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cz.csv"
    path.write_bytes(
        "question;answer\nJaké je hlavní město Česka?;Praha je hlavní město České republiky, žije v ní přes "
        "milion lidí.\n".encode("cp1250")
    )
    error = said(["inspect", str(path), "--model", str(tiny_model)], capsys, 2)["error"]
    assert ("cp1250: Jaké" in error["message"], error["where"]) == (True, "data.encoding")
    assert said(["inspect", str(path), "--model", str(tiny_model), "--encoding", "cp1250"], capsys)["rows"] == 1


def test_rows_a_template_cannot_write_are_refused_with_its_reason(
    home: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from studio.errors import TemplateError

    call = {"type": "function", "function": {"name": "fetch_owl", "arguments": {"kind": "barn"}}}
    row = {
        "messages": [
            {"role": "user", "content": "Fetch it."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "done"},
            {"role": "assistant", "content": "Here it is."},
        ]
    }
    path = tmp_path / "calls.jsonl"
    path.write_bytes(as_lines([row] * 3))
    answer = said(["inspect", str(path), "--model", str(tiny_model), "--template", "alpaca"], capsys)
    told = [p for p in answer["problems"] if p["kind"] == "unrenderable"]
    assert (answer["refused"], answer["counts"]["unrenderable"], [p["row"] for p in told]) == (3, 3, [1, 2, 3])
    assert "calls of tools" in told[0]["reason"]
    assert set(told[0]) == PROBLEM
    encoder = Encoder(tiny_model, template.load("alpaca", tiny_model))
    with pytest.raises(TemplateError, match="calls of tools"):
        template_check.check(encoder, data.read(path).conversations[:50])
