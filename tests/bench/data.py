"""How fast a large file is imported and checked, against merely parsing it, and in how much memory.

    python -m tests.bench.data [--rows 1000000] [--folder DIR] [--json]

Every measurement runs in a process of its own, so that its peak memory is its own (its children included).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = Path(__file__).resolve().parents[2] / "studio" / "samples" / "three_lines.json"
PARTS = ("orjson", "pyarrow", "read")


def write(path: Path, rows: int) -> None:
    """A JSON Lines file of distinct Alpaca rows of about 1 kB, with a few of every common fault."""
    draw = random.Random(7)
    words = re.findall(r"[a-z']+", WORDS.read_text(encoding="utf-8").lower())
    sentences = [" ".join(draw.choices(words, k=draw.randint(6, 16))).capitalize() + "." for _ in range(20000)]
    with open(path, "w", encoding="utf-8") as file:
        for n in range(rows):
            question = f"{draw.choice(sentences)} Case {n}?"
            answer = " ".join(draw.choices(sentences, k=draw.randint(6, 16)))
            if n % 5000 == 17:
                answer = answer.replace(".", " {{name}}.", 1)
            elif n % 5000 == 29:
                answer += " Write to someone@example.com."
            elif n % 20000 == 43:
                answer = ""
            given = draw.choice(sentences) if n % 3 == 0 else ""
            file.write(json.dumps({"instruction": question, "input": given, "output": answer}) + "\n")


def measure(part: str, path: Path) -> dict[str, float]:
    """Seconds, seconds of processor time and peak memory (bytes, of this process and its children) of one way to read the file."""
    start = time.perf_counter()
    found: dict[str, float] = {}
    if part == "orjson":
        import orjson

        with open(path, "rb") as file:
            found["rows"] = sum(1 for line in file if orjson.loads(line))
    elif part == "pyarrow":
        import pyarrow.json

        with pyarrow.json.open_json(path) as reader:
            found["rows"] = sum(batch.num_rows for batch in reader)
    else:
        from studio import data

        dataset = data.read(path)
        found |= {"rows": dataset.rows, "problems": sum(dataset.counts.values())}
    seconds = time.perf_counter() - start
    worked = os.times()
    processor = worked.user + worked.system + worked.children_user + worked.children_system
    return found | {"seconds": round(seconds, 3), "processor_seconds": round(processor, 2), "peak": peak()}


def peak() -> int:
    """Peak resident bytes of this process plus the largest of its ended children times their number (an upper bound)."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + children * min(8, os.cpu_count() or 1)) * 1024


def apart(part: str, path: Path, home: str) -> dict[str, float]:
    """measure in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.data", "--part", part, "--file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"STUDIO_HOME": home})
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", help="keep the generated file here")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(measure(given.part, Path(given.file))))
        return
    with tempfile.TemporaryDirectory() as home:
        path = Path(given.folder or home) / f"rows-{given.rows}.jsonl"
        if not path.exists():
            write(path, given.rows)
        table = {part: apart(part, path, home) for part in PARTS}
    read = table["read"]["seconds"]
    answer = {"rows": given.rows, "bytes": path.stat().st_size if path.exists() else None, **table}
    answer["ratio_to_orjson"] = round(read / table["orjson"]["seconds"], 2)
    answer["ratio_to_pyarrow"] = round(read / table["pyarrow"]["seconds"], 2)
    print(json.dumps(answer) if given.json else "\n".join(f"{key}: {value}" for key, value in answer.items()))


if __name__ == "__main__":
    main()
