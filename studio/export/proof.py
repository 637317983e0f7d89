"""The proof of an export: the trained and the exported model, each loaded by a fresh process, answer the same prompts
greedily.

It counts the answers that agree token for token and those that stopped at an end token, compares the ids of texts, and
measures what rounding costs as the held-out loss of the trained, the merged and the exported model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import islice, takewhile, zip_longest
from pathlib import Path
from typing import Any

from studio import data, run
from studio.base import source
from studio.errors import StudioError
from studio.home import subfolder, write_atomic
from studio.job_process import ask_worker
from studio.talk.reference import ModelReference
from studio.tokens import Encoder

PROMPTS = 20
ROWS = 32  # held-out conversations to take the loss of, at most
MAX_TOKENS = 200  # a longer answer counts as one that did not stop
Progress = Callable[[str, int, int], None]
Question = dict[str, Any]  # {messages, tools where the row declares some}

GENERAL = (  # for runs whose data gives fewer than twenty
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


def prove(trained: ModelReference, exported: str, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Compare a trained model with its export, as `compared` returns it. Raises StudioError where one cannot run."""
    order = {
        "questions": questions(trained.name),
        "texts": list(TEXTS),
        "max_tokens": MAX_TOKENS,
        **_held_out(trained.name),
    }
    ours = _trained(trained, order, progress)
    order |= {"rows": ours["rows"], "prompts": [answer["prompt"] for answer in ours["answers"]]}
    progress("loading the export", 0, 0)
    theirs = _run_side("exported", exported, order, lambda done, total: progress("asking the export", done, total))
    return compared(order["questions"], ours, theirs)


def compared(asked: list[Question], ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Compare the answers of both sides.

    Returns {by, prompts, agree, stopped, same_prompts, tokenizer: {texts, same, differences}, differences: [{question,
    trained, exported}], loss: {trained, merged, exported, rows} or None, also: [the same of every other program],
    not_asked: [sentence on a program that ended before it had answered], unmeasured: [why a loss is missing]}.
    """
    pairs = list(zip(asked, ours["answers"], theirs["answers"], strict=True))
    differ = [
        {"question": question["messages"][-1]["content"], "trained": a["text"], "exported": b["text"]}
        for question, a, b in pairs
        if not _same(a, b)
    ]
    ids = list(zip(TEXTS, ours["ids"], theirs["ids"], strict=True))
    other_ids = [{"text": text, "trained": a, "exported": b} for text, a, b in ids if a != b]
    comparison = {
        "by": theirs["by"],
        "prompts": len(asked),
        "agree": len(asked) - len(differ),
        "stopped": sum(b["finish"] == "stop" for _, _, b in pairs),
        "same_prompts": all(b["prompt"] is None or a["prompt"] == b["prompt"] for _, a, b in pairs),
        "tokenizer": {"texts": len(ids), "same": len(ids) - len(other_ids), "differences": other_ids[:3]},
        "differences": differ[:5],
    }
    if "loss" not in theirs:
        return comparison
    loss = {**ours["loss"], "exported": theirs["loss"], "rows": len(ours["rows"])} if ours["rows"] else None
    also = [compared(asked, ours, other) for other in theirs.get("others", [])]
    unmeasured = ours.get("unmeasured", []) + theirs.get("unmeasured", [])
    return {
        **comparison,
        "loss": loss,
        "unmeasured": unmeasured,
        "also": also,
        "not_asked": theirs.get("not_asked", []),
    }


def _same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Compare two answers by ids, without the end token, or by text where a program returns no ids."""
    return ours["text"] == theirs["text"] if theirs["ids"] is None else ours["ids"] == theirs["ids"]


def _held_out(name: str) -> dict[str, Any]:
    """{conversations, encoding} of a run's held-out rows. None of them where there is no such run or data."""
    try:
        order = run.find(name.partition("@")[0]).config
        rows = held_out(order)[:ROWS]
    except StudioError:
        return {"conversations": [], "encoding": {}}
    return {"conversations": rows, "encoding": Encoder.settings(order.data)}


def questions(name: str) -> list[Question]:
    """Twenty prompts, the same for the same run: from its held-out rows, then its training rows, then general ones.

    Rows after whose prompt the model has no room for an answer are not asked.
    """
    try:
        order = run.find(name.partition("@")[0]).config
        rows = held_out(order)
        rows += [row for section, seed in order.data_sections() for row in data.trained_on(section, seed, PROMPTS)]
        section, folder = order.data_sections()[0][0], source.fetch(order.model)
        encoder = Encoder.from_order(section, folder, num_virtual_tokens=order.virtual_tokens)
        prompts = [prompt for row in rows if (prompt := _prompt(row))]
        unique = {json.dumps(prompt, sort_keys=True): prompt for prompt in prompts}.values()
        own = list(islice((prompt for prompt in unique if _has_room(encoder, prompt)), PROMPTS))
    except StudioError:
        own = []  # the data has moved, or this is no run
    return (own + [{"messages": [{"role": "user", "content": text}]} for text in GENERAL])[:PROMPTS]


def _has_room(encoder: Encoder, prompt: Question) -> bool:
    limit = encoder.context_limit
    return limit is None or len(encoder.prompt_ids(**prompt)) + MAX_TOKENS <= limit


def held_out(order: Any) -> list[dict[str, Any]]:
    """The conversations that a run's trainer holds out. Raises StudioError when data or model is gone."""
    folder = source.fetch(order.model)
    parts = [
        data.held_out(section, Encoder.from_order(section, folder, num_virtual_tokens=order.virtual_tokens), seed)
        for section, seed in order.data_sections()
    ]
    interleaved = (row for rows in zip_longest(*parts) for row in rows)  # the parents of a combination in turn
    return [row for row in interleaved if row is not None]


def _prompt(row: dict[str, Any]) -> Question | None:
    """What stands before a conversation's first answer; None for plain text or where no user asks."""
    messages = list(takewhile(lambda message: message["role"] != "assistant", row.get("messages") or []))
    if not messages or messages[-1]["role"] != "user":
        return None
    return {"messages": messages, **({"tools": row["tools"]} if row.get("tools") else {})}


def answered(trained: run.Run) -> list[tuple[str, str]]:
    """(question, answer) pairs from an earlier proof of a run's result; [] where there was none."""
    asked = questions(trained.id)
    file = _cache_file(trained.id, trained.result, asked)
    texts = [answer["text"] for answer in json.loads(file.read_text())] if file.is_file() else []
    return [(question["messages"][-1]["content"], text) for question, text in zip(asked, texts, strict=False)]


def _trained(reference: ModelReference, order: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The trained model's side, cached for all exports of the same result."""
    weights = reference.result or reference.base
    file = _cache_file(reference.name, weights, order)
    if file.is_file():
        return json.loads(file.read_text())
    progress("loading the trained model", 0, 0)
    side = _run_side(
        "trained", reference.name, order, lambda done, total: progress("asking the trained model", done, total)
    )
    write_atomic(file, json.dumps(side, ensure_ascii=False))
    answers_file = _cache_file(reference.name, weights, order["questions"])
    write_atomic(answers_file, json.dumps(side["answers"], ensure_ascii=False))
    return side


def _cache_file(name: str, weights: Path, asked: Any) -> Path:
    """The cache file for what was asked of these weights, which are known by their files' times and sizes."""
    stats = [(file.name, file.stat()) for file in sorted(weights.glob("*.safetensors"))]
    stamp = [(file_name, stat.st_mtime_ns, stat.st_size) for file_name, stat in stats]
    digest = hashlib.sha256(json.dumps([name, stamp, asked, MAX_TOKENS]).encode()).hexdigest()
    return subfolder("cache") / f"proof-{digest[:24]}.json"


def _run_side(side: str, name: str, order: dict[str, Any], progress: Callable[[int, int], None]) -> dict[str, Any]:
    return ask_worker(["studio.worker.prove", side, name], order, progress)
