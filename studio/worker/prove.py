"""python -m studio.worker.prove MODEL QUESTIONS.json ANSWERS.json: greedy answers of one model, in a process of its own.

What an export's proof compares: the same questions, asked of the trained and of the exported model reloaded from disk. In float32,
so that what differs is the files and not the rounding of the arithmetic.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from studio import device
from studio.talk.voice import Voice, of_folder, voice
from studio.worker.generate import Sampling
from studio.worker.speakers import Speaker, Speakers, where


def answers(speaker: Speaker, questions: list[list[dict[str, Any]]], max_tokens: int, tell: Any = None) -> list[dict[str, Any]]:
    """[{text, ids, finish}] in the order of the questions; all are written side by side."""
    asked = [speaker.answer(messages, Sampling(max_tokens=max_tokens, temperature=0)) for messages in questions]
    texts = [""] * len(asked)
    for place, answer in enumerate(asked):
        while (shown := speaker.batch.read(answer)) is None:
            pass
        texts[place] += shown
    while speaker.batch.rows:
        for answer, shown in speaker.batch.step():
            texts[asked.index(answer)] += shown
        if tell:
            tell(sum(one.finish is not None for one in asked), len(asked))
    return [{"text": text, "ids": answer.new, "prompt": answer.prompt, "finish": answer.finish} for text, answer in zip(texts, asked, strict=True)]


def opened(name: str, scratch: Path) -> Voice:
    """A voice by name; a .gguf file is read back through transformers, in float32, with the template and stop token it carries."""
    if not name.endswith(".gguf"):
        return voice(name)
    from studio.worker.convert import convert
    convert(Path(name), scratch / "model", torch.float32)
    return replace(of_folder(scratch / "model", name), name=name)


def main(name: str, questions: Path, out: Path) -> None:
    torch.set_num_threads(device.cores())
    order = json.loads(questions.read_text())
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        speaker = Speakers(where(), torch.float32).load(opened(name, Path(scratch)))
        found = answers(speaker, order["questions"], order["max_tokens"], lambda done, total: print(f"{done}/{total}", flush=True))
    out.write_text(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
