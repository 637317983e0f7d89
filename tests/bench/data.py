"""bench data: a large file imported and checked, against merely parsing it: seconds, processor seconds, peak memory.

Every measurement runs in a process of its own, so that its peak memory is its own (its children included), and after
the file was read once, so that all find it in memory. The readers take turns, and a ratio is the median of those of the
turns.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.home import PROJECT

WORDS = PROJECT / "studio" / "samples" / "three_lines.json"
READERS = ("orjson", "pyarrow", "import")
COMMAND = "import sys; from tests.bench.data import part; part(*sys.argv[1:])"
Row = dict[str, Any]


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `bench data`."""
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=FORMATS, default="alpaca")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the generated file here")
    parser.set_defaults(run=measure, show=show)


def measure(args: argparse.Namespace) -> list[Row]:
    """The table as a list of rows {reader, rows, bytes, seconds, processor_seconds, peak, ratio}; peak in bytes, ratio:
    of the import to it.
    """
    with tempfile.TemporaryDirectory() as home:
        path = (args.folder or Path(home)) / f"{args.format}-{args.rows}.jsonl"
        if not path.exists():
            write(path, args.rows, args.format)
        turns = [{reader: apart(reader, path) for reader in READERS} for _ in range(args.repeats)]
        size = path.stat().st_size
    table = []
    for reader in READERS:
        middle = {
            key: statistics.median(turn[reader][key] for turn in turns)
            for key in ("seconds", "processor_seconds", "peak")
        }
        ratio = round(statistics.median(turn["import"]["seconds"] / turn[reader]["seconds"] for turn in turns), 2)
        table.append({"reader": reader, "rows": turns[0][reader]["rows"], "bytes": size, **middle, "ratio": ratio})
    return table


def show(rows: list[Row]) -> None:
    """The table to read."""
    print(
        f"{rows[0]['rows']:,} rows, {rows[0]['bytes'] / 1e6:,.0f} "
        f"MB\n{'':10}{'seconds':>9}{'processor':>11}{'peak':>10}{'import takes':>14}"
    )
    for row in rows:
        print(
            f"{row['reader']:10}{row['seconds']:9.2f}{row['processor_seconds']:9.2f} s{row['peak'] / 1e6:7,.0f} "
            f"MB{row['ratio']:13.2f}x"
        )


def apart(reader: str, path: Path) -> Row:
    """One reader's measurement, in a process of its own, with a home of its own beside the file."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
    with tempfile.TemporaryDirectory(dir=path.parent) as home:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, reader, str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=PROJECT,
            env=os.environ | {"STUDIO_HOME": home},
        )
    return json.loads(done.stdout)


def part(reader: str, path: str) -> None:
    """Print what one reader of the file takes."""
    start = time.perf_counter()
    found: Row = {}
    if reader == "orjson":
        import orjson

        with open(path, "rb") as file:
            found["rows"] = sum(1 for line in file if orjson.loads(line))
    elif reader == "pyarrow":
        import pyarrow.json

        with pyarrow.json.open_json(path) as batches:
            found["rows"] = sum(batch.num_rows for batch in batches)
    else:
        from studio import data

        dataset = data.read(path)
        found |= {"rows": dataset.rows, "problems": sum(dataset.counts.values())}
    found["seconds"] = round(time.perf_counter() - start, 3)
    worked = os.times()
    found["processor_seconds"] = round(worked.user + worked.system + worked.children_user + worked.children_system, 2)
    print(json.dumps(found | {"peak": _peak()}))


def _peak() -> int:
    """Peak resident bytes of this process plus the largest of its ended children times their number (an upper
    bound).
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + children * min(8, os.cpu_count() or 1)) * 1024


def write(path: Path, rows: int, form: str) -> None:
    """JSON Lines of distinct rows of about 800 bytes, with a few of some common faults; some answers have quotes and
    several paragraphs.
    """
    draw = random.Random(7)
    words = re.findall(r"[a-z']+", WORDS.read_text(encoding="utf-8").lower())
    sentences = [" ".join(draw.choices(words, k=draw.randint(6, 16))).capitalize() + "." for _ in range(20000)]
    with open(path, "w", encoding="utf-8") as file:
        for n in range(rows):
            question = f"{draw.choice(sentences)} Case {n}?"
            said = draw.choices(sentences, k=draw.randint(6, 16))
            answer = "\n\n".join((" ".join(said[:3]), " ".join(said[3:]))) if n % 4 == 1 else " ".join(said)
            if n % 7 == 3:
                answer = answer.replace(" the ", ' "the" ', 1)
            if n % 5000 == 17:
                answer = answer.replace(".", " {{name}}.", 1)
            elif n % 5000 == 29:
                answer += " Write to someone@example.com."
            elif n % 20000 == 43:
                answer = ""
            file.write(json.dumps(FORMATS[form](n, question, draw.choice(sentences), answer)) + "\n")


def _alpaca(n: int, question: str, given: str, answer: str) -> Row:
    return {"instruction": question, "input": given if n % 3 == 0 else "", "output": answer}


def _turns(n: int, question: str, given: str, answer: str) -> list[tuple[str, str]]:
    """A question and its answer; of every third row a second pair, and in front of every fourth a system turn."""
    middle = answer.find(". ", len(answer) // 2) + 2
    pairs = (
        [(question, answer[:middle]), (given, answer[middle:])]
        if n % 3 == 0 and 2 <= middle < len(answer)
        else [(question, answer)]
    )
    turns = [turn for asked, said in pairs for turn in (("user", asked), ("assistant", said))]
    return [("system", "Answer in whole sentences."), *turns] if n % 4 == 0 else turns


def _chatml(n: int, question: str, given: str, answer: str) -> Row:
    return {"messages": [{"role": role, "content": said} for role, said in _turns(n, question, given, answer)]}


def _sharegpt(n: int, question: str, given: str, answer: str) -> Row:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return {
        "id": f"row-{n}",
        "conversations": [{"from": names[role], "value": said} for role, said in _turns(n, question, given, answer)],
    }


def _prompt(n: int, question: str, given: str, answer: str) -> Row:
    return {"id": n, "prompt": question, "completion": answer}


FORMATS: dict[str, Callable[[int, str, str, str], Row]] = {
    "alpaca": _alpaca,
    "chatml": _chatml,
    "sharegpt": _sharegpt,
    "prompt": _prompt,
}
