"""Proof of an export: the same twenty questions, greedily answered by the trained and by the exported model, each read from disk by a fresh process.

Told is how many answers agree token for token, how many stopped at a token that any program stops at, whether texts give the same ids there, and
what rounding costs: the held-out loss of the trained, of the merged and of the exported model.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from studio import data, process, run
from studio.base import source
from studio.device import default_environment
from studio.errors import ExportError, StudioError
from studio.home import PROJECT, subfolder, write_atomic
from studio.talk.reference import ModelReference
from studio.tokens import Encoder

PROMPTS = 20
ROWS = 32  # held-out conversations whose loss is taken, at most
MAX_TOKENS = 200  # an answer that goes on beyond is told as one that did not stop
Tell = Callable[[str, int, int], None]
Question = list[dict[str, Any]]

GENERAL = (  # asked where a run's data gives fewer than twenty
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "How do I boil an egg?",
    "Write one sentence about the sea.",
    "What is two plus three?",
    "Why is the sky blue?",
    "Give me a tip for better sleep.",
    "What do bees make?",
    "Say good morning in Spanish.",
    "Which month comes after June?",
    "What is a good name for a cat?",
    "How many legs has a spider?",
    "Explain what a bicycle is.",
    "Name an animal that can fly.",
    "What should I cook tonight?",
    "How can I learn a language faster?",
    "What is the opposite of cold?",
    "Tell me a short joke.",
    "Who wrote Romeo and Juliet?",
    "How do plants drink?",
)


TEXTS = (  # whose ids are compared: numbers, code, Chinese, Japanese, accents, emoji, blanks
    "In 2026, 1234567 of 89,012.50 people (3.14 %) paid $1,000.",
    "def f(x):\n\treturn x ** 2  # squared\n\n\nprint(f(10))\n",
    "今天天气怎么样？我们去公园吧。",
    "东京は2026年に人口1400万人です。",
    "I'll say: don't, they're, WE'VE — naïve café, Größe, Ελλάδα, Привет!",
    "👍🏽 👨‍👩‍👧‍👦 🎉 ok 🇩🇪",
    "  two  spaces\t tab\r\n\r\n end  ",
    '{"a": [1, 22, 333, 4444], "b": "x_y-z"}',
    "https://example.org/a?b=1&c=%20#d",
    "x=1;y=22;z=333;w=4444;v=55555",
)


def prove(trained: ModelReference, exported: str, tell: Tell = lambda *_: None) -> dict[str, Any]:
    """What `compared` tells. exported: a folder or a .gguf file. Raises StudioError where one of them cannot be asked."""
    order = {
        "questions": questions(trained.name),
        "texts": list(TEXTS),
        "max_tokens": MAX_TOKENS,
        **_held_out(trained.name),
    }
    ours = _kept(trained, order, tell)
    asked = {**order, "rows": ours["rows"], "prompts": [one["prompt"] for one in ours["answers"]]}
    theirs = _asked("exported", exported, asked, lambda done, total: tell("asking the export", done, total))
    return compared(order["questions"], ours, theirs)


def compared(asked: list[Question], ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """{prompts, agree, stopped, same_prompts, tokenizer: {texts, same, differences}, loss: {trained, merged, exported, rows} or None, by,
    also: [the same of every other program asked], differences: [{question, trained, exported}]}."""
    pairs = list(zip(asked, ours["answers"], theirs["answers"], strict=True))
    differ = [
        {"question": question[-1]["content"], "trained": a["text"], "exported": b["text"]}
        for question, a, b in pairs
        if not _same(a, b)
    ]
    ids = list(zip(TEXTS, ours["ids"], theirs["ids"], strict=True))
    other = [{"text": text, "trained": a, "exported": b} for text, a, b in ids if a != b]
    told = {
        "by": theirs["by"],
        "prompts": len(asked),
        "agree": len(asked) - len(differ),
        "stopped": sum(b["finish"] == "stop" for _, _, b in pairs),
        "same_prompts": all(b["prompt"] is None or a["prompt"] == b["prompt"] for _, a, b in pairs),
        "tokenizer": {"texts": len(ids), "same": len(ids) - len(other), "differences": other[:3]},
        "differences": differ[:5],
    }
    if "loss" not in theirs:
        return told
    loss = {**ours["loss"], "exported": theirs["loss"], "rows": len(ours["rows"])} if ours["rows"] else None
    return {**told, "loss": loss, "also": [compared(asked, ours, one) for one in theirs.get("others", [])]}


def _same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Token for token, the end token apart; by text where a program tells no ids."""
    return ours["text"] == theirs["text"] if theirs["ids"] is None else ours["ids"] == theirs["ids"]


def _held_out(name: str) -> dict[str, Any]:
    """What a run measures itself on: {conversations, encoding}; no conversations for what is no run, or when the data has gone."""
    try:
        order = run.find(name.partition("@")[0]).config
        rows = list(held_out(order))[:ROWS]
    except StudioError:
        return {"conversations": [], "encoding": {}}
    return {
        "conversations": rows,
        "encoding": {
            "max_length": order.data.max_length,
            "too_long": order.data.too_long,
            "train_on": order.data.train_on,
        },
    }


def questions(name: str) -> list[Question]:
    """Twenty: from what the run held out, then from what it was trained on, then general ones. The same for the same run."""
    found: list[Question] = []
    try:
        order = run.find(name.partition("@")[0]).config
        found = [question for row in _rows(order) if (question := prompt_messages(row))]
    except StudioError:
        found = []  # the data has moved, or this is no run
    unique = list({json.dumps(question, sort_keys=True): question for question in found}.values())
    return (unique + [[{"role": "user", "content": text}] for text in GENERAL])[:PROMPTS]


def held_out(order: Any) -> list[dict[str, Any]]:
    """The conversations a run keeps apart to measure on, as its trainer does. Raises StudioError when data or model is gone."""
    folder = source.fetch(order.model)
    parts = [
        data.held_out(section, Encoder.from_order(section, folder, num_virtual_tokens=order.virtual_tokens), seed)
        for section, seed in order.data_sections()
    ]
    return [
        row for several in zip_longest(*parts) for row in several if row is not None
    ]  # of a combination: from each in turn


def _rows(order: Any) -> list[dict[str, Any]]:
    return [
        *held_out(order),
        *(row for section, seed in order.data_sections() for row in data.trained_on(section, seed, PROMPTS)),
    ]


def prompt_messages(row: dict[str, Any]) -> Question | None:
    """A conversation up to its first answer; None for plain text or where nobody asks."""
    kept: Question = []
    for message in row.get("messages") or []:
        if message["role"] == "assistant":
            break
        kept.append(message)
    return kept if kept and kept[-1]["role"] == "user" else None


def answered(one: run.Run) -> list[tuple[str, str]]:
    """(question, answer) of a run's result, where an export has asked before; [] where none has."""
    asked = questions(one.id)
    file = _file(one.id, one.result, asked)
    texts = [answer["text"] for answer in json.loads(file.read_text())] if file.is_file() else []
    return [(question[-1]["content"], text) for question, text in zip(asked, texts, strict=False)]


def _kept(voice: ModelReference, order: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The trained model's side, asked once for all exports of the same result."""
    file = _file(voice.name, voice.result or voice.base, order)
    if file.is_file():
        return json.loads(file.read_text())
    found = _asked("trained", voice.name, order, lambda done, total: tell("asking the trained model", done, total))
    write_atomic(file, json.dumps(found, ensure_ascii=False))
    write_atomic(
        _file(voice.name, voice.result or voice.base, order["questions"]),
        json.dumps(found["answers"], ensure_ascii=False),
    )
    return found


def _file(name: str, weights: Path, asked: Any) -> Path:
    """Where what these very weights gave for what was asked is kept."""
    stamp = [
        (file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(weights.glob("*.safetensors"))
    ]
    return (
        subfolder("cache")
        / f"proof-{hashlib.sha256(json.dumps([name, stamp, asked, MAX_TOKENS]).encode()).hexdigest()[:24]}.json"
    )


def _asked(side: str, name: str, order: dict[str, Any], tell: Callable[[int, int], None]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=subfolder("cache")) as scratch:
        given, told = Path(scratch, "order.json"), Path(scratch, "answer.json")
        given.write_text(json.dumps(order, ensure_ascii=False))
        run_worker(["studio.worker.prove", side, name, str(given), str(told)], tell)
        return json.loads(told.read_text())


def run_worker(command: list[str], tell: Callable[[int, int], None] = lambda *_: None) -> None:
    """Run `python -m …` to its end; lines like 3/20 are progress. Raises ExportError with what it said when it fails."""
    from studio.talk.chat import SERVER_ENVIRONMENT

    environment = {**os.environ, **SERVER_ENVIRONMENT, **default_environment(), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=partial(process.die_with_parent, os.getpid()),
    ) as worker:
        for line in worker.stdout:
            done, slash, total = line.strip().partition("/")
            if slash and done.isdigit() and total.isdigit():
                tell(int(done), int(total))
            elif line.strip():
                said.append(line.strip())
    if worker.returncode:
        last = said[-1] if said else f"exit code {worker.returncode}"
        if last.startswith('{"error"'):
            told = json.loads(last)["error"]
            raise ExportError(told["message"], told["hint"], told["where"])
        raise ExportError(
            f"The worker failed: {last[:300]}", "If memory was short, end the chat or a training first.", command[0]
        )
