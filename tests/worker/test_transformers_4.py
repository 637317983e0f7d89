"""Merged models in transformers 4.55, in an environment of its own: the same ids and greedy tokens as in the version that is installed here.

Slow, and behind a flag: STUDIO_TRANSFORMERS_4=1 makes the environment (a gigabyte), STUDIO_TRANSFORMERS_4=/path/to/python takes one that is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.export.proof import TEXTS
from studio.talk.voice import voice
from studio.worker.export import merged
from tests.worker.test_export import trained
from tests.worker.test_gguf_llama_cpp import QUESTIONS, ROPES, made

FLAG = os.environ.get("STUDIO_TRANSFORMERS_4")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FLAG, reason="set STUDIO_TRANSFORMERS_4 to run it")]
KINDS: list[tuple[str, dict[str, Any]]] = [(kind, {}) for kind in ("llama", "qwen2", "qwen3", "gemma3_text", "mistral", "phi3", "gpt2")]
KINDS += [(kind, {"rope_parameters": rope, **({"original_max_position_embeddings": 128} if kind == "phi3" else {})}) for kind, rope in ROPES.values()]
PROGRAM = """
import json, sys, torch, transformers
order = json.load(open(sys.argv[1]))
assert transformers.__version__.startswith("4."), transformers.__version__
told = []
for folder in order["folders"]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    answers = []
    for question in order["questions"]:
        text = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, pad_token_id=0)
        answers.append(made[0].tolist())
    told.append({"ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in order["texts"]], "answers": answers})
json.dump(told, open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    if FLAG != "1":
        return FLAG
    folder = tmp_path_factory.mktemp("transformers4") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", "transformers==4.55.*", f"torch=={torch.__version__.partition('+')[0]}", "numpy"], check=True)
    return str(folder / "bin" / "python")


def test_text_for_text(python: str, home: Path, tmp_path: Path) -> None:
    folders = []
    for place, (kind, changes) in enumerate(KINDS):
        base = made(tmp_path / f"{place}-{kind}", kind, **changes)
        found = voice(trained(base, modules_to_save=["lm_head"] if kind == "llama" and not changes else []).id)
        merged(found, tmp_path / f"merged-{place}")
        folders.append(str(tmp_path / f"merged-{place}"))
    (tmp_path / "order.json").write_text(json.dumps({"folders": folders, "questions": QUESTIONS, "texts": TEXTS}))
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run([python, tmp_path / "program.py", tmp_path / "order.json", tmp_path / "told.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for (kind, changes), folder, told in zip(KINDS, folders, json.loads((tmp_path / "told.json").read_text()), strict=True):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        assert told["ids"] == [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS], kind
        for question, answer in zip(QUESTIONS, told["answers"], strict=True):
            text = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False)
            ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
            ours = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, pad_token_id=0)
            assert answer == ours[0].tolist(), (kind, changes, question)
