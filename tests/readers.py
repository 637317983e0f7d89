"""Programs other than the studio that read what it exports, all asked alike: each answers with {prompt, ids, text},
greedily.

This file is also the program that another environment runs (transformers 4, see `Transformers4`): it imports nothing of
the studio at the top.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Answers = list[dict[str, Any]]


def by_transformers(
    folder: str | Path, questions: list[str], tokens: int, texts: list[str] | tuple[str, ...] = ()
) -> dict[str, Any]:
    """{answers, ids}: AutoTokenizer with its chat template, and generate as the folder's generation config has it;
    weights widened to float32.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    ends = model.generation_config.eos_token_id
    answers = []
    for question in questions:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            made = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, repetition_penalty=1.0
            )
        new = made[0, len(prompt) :].tolist()
        if new and new[-1] in (ends if isinstance(ends, list) else [ends]):
            new.pop()
        answers.append({"prompt": prompt, "ids": new, "text": tokenizer.decode(new, skip_special_tokens=True)})
    return {"answers": answers, "ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]}


def by_llama_cpp(file: Path, questions: list[str], tokens: int) -> Answers:
    """Every llama.cpp that is installed, one after the other."""
    from studio.worker.llama_cpp import readers

    return [
        {key: told[key] for key in ("prompt", "ids", "text")}
        for reader in readers(file, 512)
        for told in (reader.answer([{"role": "user", "content": question}], tokens) for question in questions)
    ]


def by_studio(name: str, questions: list[str], tokens: int, as_served: bool = False) -> Answers:
    """The studio's own generation on the trained model: in float32, or in the type that the model server takes here."""
    import torch

    from studio.talk.reference import resolve
    from studio.worker.loaded import LoadedModels
    from studio.worker.prove import answers

    loaded_model = LoadedModels("cpu", None if as_served else torch.float32).load(resolve(name))
    asked = [{"messages": [{"role": "user", "content": question}]} for question in questions]
    told = answers(loaded_model, asked, tokens)
    return [{key: one[key] for key in ("prompt", "ids", "text")} for one in told]


def by_server(name: str, questions: list[str], tokens: int) -> list[str]:
    """The texts that the page's chat shows: the model server, over HTTP."""
    from studio.talk import chat

    server = chat.server()
    try:
        server.load([name])
        return [
            "".join(
                delta.text
                for delta in server.stream(
                    name, [{"role": "user", "content": question}], temperature=0, max_tokens=tokens
                )
            )
            for question in questions
        ]
    finally:
        chat.end()


class Transformers4:
    """`by_transformers` in another environment's Python, one process for all folders."""

    def __init__(self, python: str):
        self.process = subprocess.Popen([python, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._line()["version"]

    def __call__(self, *words: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps([str(words[0]), *words[1:]]) + "\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        assert line, f"transformers 4 ended with {self.process.wait(60)}"
        return json.loads(line)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)


if __name__ == "__main__":
    import transformers

    print(json.dumps({"version": transformers.__version__}), flush=True)
    for order in sys.stdin:
        print(json.dumps(by_transformers(*json.loads(order))), flush=True)
