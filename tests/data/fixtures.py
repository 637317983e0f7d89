"""Fixture files over formats and containers: what is written, and what the reader must make of it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

QA = [
    ("Why is the sky blue?", "Air scatters blue light."),
    ("How do I boil an egg?", "Eight minutes in hot water."),
    ("What is a verb?", "A word for doing."),
]
ALPACA = [{"instruction": q, "input": "", "output": a} for q, a in QA]
WITH_INPUT = [{"instruction": "Translate to German.", "input": q, "output": a} for q, a in QA]
HISTORY = [
    {
        "instruction": q,
        "input": "",
        "output": a,
        "system": "Be brief.",
        "history": [["Hello there", "Hi, how can I help?"]],
    }
    for q, a in QA
]
MESSAGES = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": q},
            {"role": "assistant", "content": a},
        ]
    }
    for q, a in QA
]
TOOLS = [
    {
        "messages": [
            {"role": "user", "content": "What is the weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
    }
]
SHAREGPT = [
    {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}], "id": n}
    for n, (q, a) in enumerate(QA)
]
TAGGED = [{"text": f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n"} for q, a in QA]
MARKED = [{"text": f"### Human: {q}### Assistant: {a}"} for q, a in QA]
PAIRS = [{"prompt": q, "chosen": a, "rejected": "I do not know."} for q, a in QA]
SHARE_NO = {"from": "gpt", "value": "No."}
SHARE_PAIRS = [
    {"conversations": [{"from": "human", "value": q}], "chosen": {"from": "gpt", "value": a}, "rejected": SHARE_NO}
    for q, a in QA
]
KTO = [{"prompt": q, "completion": a, "label": n % 2 == 0} for n, (q, a) in enumerate(QA)]
CHINESE = [
    {"instruction": "怎样泡绿茶？", "input": "", "output": "用八十度的水。"},
    {"instruction": "什么是成语？", "input": "", "output": "固定的短语。"},
]


def as_json(rows: list[Any]) -> bytes:
    return json.dumps(rows, indent=2, ensure_ascii=False).encode()


def as_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_table(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def as_arrow(rows: list[dict[str, Any]], stream: bool = False) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def two(names: tuple[str, str]) -> list[dict[str, str]]:
    return [dict(zip(names, pair, strict=True)) for pair in QA]


class Fixture(NamedTuple):
    """A file's name and content; the format, container and number of usable rows it is read as; the first answer."""

    name: str
    content: Callable[[], bytes]
    format: str
    container: str
    rows: int = 3
    answer: str = QA[0][1]


FIXTURES = [
    Fixture("alpaca.json", lambda: as_json(ALPACA), "alpaca", "json"),
    Fixture("alpaca-input.jsonl", lambda: as_lines(WITH_INPUT), "alpaca", "jsonl"),
    Fixture("alpaca-history.json", lambda: as_json(HISTORY), "alpaca", "json"),
    Fixture("alpaca.csv", lambda: as_table(ALPACA), "alpaca", "csv"),
    Fixture("alpaca.tsv", lambda: as_table(ALPACA, "\t"), "alpaca", "tsv"),
    Fixture("semicolons.csv", lambda: as_table(ALPACA, ";"), "alpaca", "csv"),
    Fixture("alpaca.parquet", lambda: as_parquet(ALPACA), "alpaca", "parquet"),
    Fixture("alpaca.arrow", lambda: as_arrow(ALPACA), "alpaca", "arrow"),
    Fixture("stream.arrow", lambda: as_arrow(ALPACA, stream=True), "alpaca", "arrow"),
    Fixture("alpaca.jsonl.gz", lambda: gzip.compress(as_lines(ALPACA)), "alpaca", "jsonl.gz"),
    Fixture("packed.json.gz", lambda: gzip.compress(as_json(ALPACA)), "alpaca", "json.gz"),
    Fixture(
        "dolly.jsonl",
        lambda: as_lines([{"instruction": q, "context": "", "response": a} for q, a in QA]),
        "alpaca",
        "jsonl",
    ),
    Fixture("wrongly-named.txt", lambda: as_lines(ALPACA), "alpaca", "jsonl"),
    Fixture("bom.json", lambda: b"\xef\xbb\xbf" + as_json(ALPACA), "alpaca", "json"),
    Fixture("windows.jsonl", lambda: as_lines(ALPACA).replace(b"\n", b"\r\n"), "alpaca", "jsonl"),
    Fixture("utf16.json", lambda: as_json(ALPACA).decode().encode("utf-16"), "alpaca", "json"),
    Fixture("gbk.csv", lambda: as_table(CHINESE).decode().encode("gb18030"), "alpaca", "csv", 2, "用八十度的水。"),
    Fixture("wrapped.json", lambda: json.dumps({"version": 1, "data": ALPACA}).encode(), "alpaca", "json"),
    Fixture(
        "one-after-the-other.json",
        lambda: b"\n".join(json.dumps(r, indent=1).encode() for r in ALPACA),
        "alpaca",
        "json",
    ),
    Fixture("messages.jsonl", lambda: as_lines(MESSAGES), "chatml", "jsonl"),
    Fixture("messages.parquet", lambda: as_parquet(MESSAGES), "chatml", "parquet"),
    Fixture("messages.csv", lambda: as_table(MESSAGES), "chatml", "csv"),
    Fixture(
        "conversation.json", lambda: as_json([{"conversation": r["messages"]} for r in MESSAGES]), "chatml", "json"
    ),
    Fixture("bare-lists.jsonl", lambda: as_lines([r["messages"] for r in MESSAGES]), "chatml", "jsonl"),
    Fixture("tools.jsonl", lambda: as_lines(TOOLS), "chatml", "jsonl", 1, ""),
    Fixture("sharegpt.json", lambda: as_json(SHAREGPT), "sharegpt", "json"),
    Fixture("sharegpt.arrow", lambda: as_arrow(SHAREGPT), "sharegpt", "arrow"),
    Fixture("tagged.jsonl", lambda: as_lines(TAGGED), "chatml_text", "jsonl"),
    Fixture("tagged.txt", lambda: "".join(r["text"] for r in TAGGED).encode(), "chatml_text", "text"),
    Fixture("prompts.jsonl", lambda: as_lines(two(("prompt", "completion"))), "prompt", "jsonl"),
    Fixture("questions.csv", lambda: as_table(two(("question", "answer"))), "prompt", "csv"),
    Fixture("questions.tsv.gz", lambda: gzip.compress(as_table(two(("question", "answer")), "\t")), "prompt", "tsv.gz"),
    Fixture("plain.jsonl", lambda: as_lines([{"text": a} for _, a in QA]), "text", "jsonl"),
    Fixture("marked.jsonl", lambda: as_lines(MARKED), "text", "jsonl", 3, MARKED[0]["text"]),
    Fixture(
        "story.txt",
        lambda: "\n\n".join(a + "\nAnd so on." for _, a in QA).encode(),
        "text",
        "text",
        3,
        QA[0][1] + "\nAnd so on.",
    ),
    Fixture("pairs.jsonl", lambda: as_lines(PAIRS), "preference", "jsonl"),
    Fixture("share-pairs.json", lambda: as_json(SHARE_PAIRS), "preference", "json"),
    Fixture("kto.json", lambda: as_json(KTO), "kto", "json"),
]
