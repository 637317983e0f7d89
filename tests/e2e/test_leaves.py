"""What was trained answers alike wherever it goes, for every family of the README's table: order, stop, resume, merge,
GGUF, Ollama folder, and then the same greedy text from the studio's chat, transformers 5, llama.cpp and, with --rare,
transformers 4.55 in an environment of its own.

Always: tiny models, trained and exported inside this process. With --rare: supervised processes, the real model server,
and the starter.
"""

from __future__ import annotations

import json
import operator
import re
import shutil
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from studio import config, queue, run
from studio.export import folders, proof
from studio.export.proof import TEXTS
from studio.run import Run
from studio.talk.reference import resolve
from studio.talk.stopping import end_tokens
from tests import families
from tests.export.test_modelfile import written_by_go
from tests.readers import Transformers4, by_llama_cpp, by_server, by_studio, by_transformers
from tests.worker.test_gguf_llama_cpp import made

QUESTIONS = [
    "What is the capital of France?",
    "Write one line about the sea.",
    "In 2026, 1234567 naïve cafés: 今天 👍🏽\n\n\tx = 1;  y",
]
ANSWERS = ["The capital of France is Paris.", "The sea is wide and blue.", "1234567 naïve: 今天 👍🏽\n\ty"]
TOKENS = 48
STEPS = 50


def order(model: Path, rows: Path) -> config.RunConfig:
    """LoRA, with the table and the head trained beside it: so small a model learns whole answers by heart only with
    these (and is untied by them).
    """
    table = "wte" if json.loads((model / "config.json").read_text())["model_type"] == "gpt2" else "embed_tokens"
    return config.build(
        {
            "model": str(model),
            "data": {"train": str(rows), "eval": 0, "max_length": 160},
            "method": {"name": "lora", "rank": 16, "modules_to_save": [table, "lm_head"]},
            "training": {
                "max_steps": STEPS,
                "learning_rate": 2e-2,
                "batch_size": 3,
                "accumulation": 1,
                "save_every": 20,
                "threads": 1,
                "probe": False,
                "precision": "fp32",
            },
        }
    )


def data(folder: Path) -> Path:
    file = folder / "rows.json"
    file.write_text(
        json.dumps(
            [
                {"instruction": question, "input": "", "output": answer}
                for question, answer in zip(QUESTIONS, ANSWERS, strict=True)
            ]
            * 4
        )
    )
    return file


def weights(one: Run) -> bytes:
    (file,) = one.result.glob("*.safetensors")
    return file.read_bytes()


def here(whole: Run, cut: Run) -> None:
    """Both to their end inside this process; the second is stopped after a step that no checkpoint was due at, and
    resumed.
    """
    from studio.worker.train import main

    assert main(whole) == 0
    append = cut.append

    def stopping(kind: str, /, **fields: Any) -> None:
        append(kind, **fields)
        if kind == "step" and fields["step"] == STEPS // 2 + 1:
            cut.request_stop()

    cut.append = stopping
    assert main(cut) == 0
    assert cut.events()[-1]["state"] == "stopped"
    cut.stop_file.unlink()
    assert main(Run(cut.folder)) == 0


def elsewhere(whole: Run | None, cut: Run, steps: int = STEPS // 2) -> None:
    """The same as people do it: the queue, a supervisor and a trainer for each, the page's own stop and resume."""
    for one in filter(None, (whole, cut)):
        queue.resume(one)
        until = time.monotonic() + 3000
        while queue.reconcile(one) in ("queued", *run.ALIVE) and time.monotonic() < until:
            if one is cut and run.summary(one)["step"] >= steps and not one.stop_file.exists():
                queue.stop(one)
            time.sleep(0.02)
        if one is cut:
            assert one.state() == "stopped", run.summary(one)
            queue.resume(one)
            while queue.reconcile(one) in ("queued", *run.ALIVE) and time.monotonic() < until:
                time.sleep(0.1)
        assert one.state() == "finished", run.summary(one)


class Alike:
    """Whether two answers are the same, but for what another arithmetic makes of two tokens that are all but equally
    likely: a GGUF file at f16 rounds its weights. A real model has such places, a tiny one that learnt whole
    answers by heart none.
    """

    def __init__(self, name: str):
        import torch

        from studio.worker.loaded import LoadedModels

        self.loaded = LoadedModels("cpu", torch.float32).load(resolve(name))

    def __call__(self, ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
        if ours["prompt"] != theirs["prompt"] or ours["ids"] == theirs["ids"]:
            return ours == theirs
        return self.margin(ours["prompt"], ours["ids"], theirs["ids"]) < 0.1

    def margin(self, prompt: list[int], ours: list[int], theirs: list[int]) -> float:
        """By how much the trained model prefers its own token, in log-probability, where the answers part."""
        import torch

        end = end_tokens(self.loaded.reference)[0]
        pairs = enumerate(zip(ours + [end], theirs + [end], strict=False))
        at, (own, other) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        with torch.inference_mode():
            scores = self.loaded.model(input_ids=torch.tensor([prompt + ours[:at]])).logits[0, -1]
        return float(scores[own] - scores[other])

    def texts(self, found: list[dict[str, str]]) -> bool:
        """The same of a proof's differences, whose ids are those of their texts."""
        encoder = self.loaded.encoder
        for one in found:
            prompt = encoder.prompt_ids([{"role": "user", "content": one["question"]}])
            ours, theirs = (
                encoder.tokenizer.encode(one[side], add_special_tokens=False).ids for side in ("trained", "exported")
            )
            if ours != theirs and self.margin(prompt, ours, theirs) >= 0.1:
                return False
        return True


def exported(one: Run, folder: Path, proven: bool, alike: Alike | None = None) -> dict[str, Path]:
    """Every way out that another program reads; with a proof, the studio's own must find nothing amiss."""
    found = {}
    for kind, precision in (("merged", "f32"), ("gguf", "f32"), ("gguf", "f16"), ("ollama", "f32")):
        told = folders.export(
            one.id, kind, folder / f"{kind}-{precision}{'.gguf' * (kind == 'gguf')}", precision, proven=proven
        )
        found[f"{kind}-{precision}"] = Path(told["path"])
        if proven:
            assert "failed" not in told["proof"], told["proof"]
            differ = told["proof"]["prompts"] - told["proof"]["agree"]
            assert differ == 0 or (alike and differ <= 5 and alike.texts(told["proof"]["differences"])), told["proof"]
            assert told["proof"]["same_prompts"]
            assert told["proof"]["tokenizer"]["same"] == len(TEXTS)
    return found


def compare(
    found: dict[str, Path],
    wanted: list[dict[str, Any]],
    questions: list[str],
    tokens: int,
    alike: Callable[[Any, Any], bool] = operator.eq,
) -> None:
    """transformers 5, llama.cpp on each GGUF file, and the Ollama folder: ids of the prompt, of the answer, and its
    text.
    """
    assert by_transformers(found["merged-f32"], questions, tokens)["answers"] == wanted
    for name in ("gguf-f32", "gguf-f16"):
        told = by_llama_cpp(found[name], questions, tokens)
        assert all(map(alike, cycle(wanted), told)), (name, wanted, told)
    modelfile = (found["ollama-f32"] / "Modelfile").read_text()
    source = found["ollama-f32"] / re.search(r"^FROM (\S+)$", modelfile, re.M)[1]
    assert all(map(alike, cycle(wanted), by_llama_cpp(source, questions, tokens)))
    if shutil.which("go"):
        asked_by_ollama(found["ollama-f32"], source, modelfile, wanted, questions)


def asked_by_ollama(
    folder: Path, file: Path, modelfile: str, wanted: list[dict[str, Any]], questions: list[str]
) -> None:
    """Ollama renders the Modelfile's TEMPLATE with Go and stops at its stop texts: the same prompt, and no answer holds
    one of them.
    """
    from studio.worker.llama_cpp import readers

    program = re.search(r'^TEMPLATE """(.*?)"""', modelfile, re.M | re.S)[1]
    system = [
        {"role": "system", "content": found[1]}
        for found in [re.search(r'^SYSTEM """(.*?)"""', modelfile, re.M | re.S)]
        if found
    ]
    (texts,) = written_by_go(
        [{"Template": program, "Talks": [[*system, {"role": "user", "content": question}] for question in questions]}],
        folder,
    )
    reader = readers(file, 512)[0]
    assert [reader.ids(text) for text in texts] == [one["prompt"] for one in wanted]
    stops = re.findall(r'^PARAMETER stop "(.*)"$', modelfile, re.M)
    assert stops
    assert not any(stop in one["text"] for stop in stops for one in wanted)


@pytest.mark.parametrize("family", families.LEAVES)
def test_a_tiny_model(
    family: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("xllamacpp")
    from studio.worker import export

    monkeypatch.setattr(
        folders, "run_worker", lambda words, tell: export.main(words[1], words[2], Path(words[3]))
    )  # the exporter's process, in this one
    ordered = order(made(tmp_path / "base", family), data(tmp_path))
    whole, cut = (run.create(ordered) for _ in range(2))
    here(whole, cut)
    assert weights(cut) == weights(whole)
    wanted = by_studio(whole.id, QUESTIONS, TOKENS)
    assert [
        one["text"] for one in wanted
    ] == ANSWERS  # learnt by heart: the likeliest token is so by far, in float16 too
    found = exported(whole, tmp_path, proven=False)
    compare(found, wanted, QUESTIONS, TOKENS)
    if request.config.getoption("--rare"):
        older(request.getfixturevalue("transformers_4"), found, wanted, QUESTIONS, TOKENS)


def older(
    transformers_4: Transformers4,
    found: dict[str, Path],
    wanted: list[dict[str, Any]],
    questions: list[str],
    tokens: int,
) -> None:
    ids = by_transformers(found["merged-f32"], [], 0, TEXTS)["ids"]
    assert transformers_4(found["merged-f32"], questions, tokens, TEXTS) == {"answers": wanted, "ids": ids}


@pytest.mark.rare
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", families.LEAVES)
def test_a_tiny_model_in_processes(family: str, home: Path, tmp_path: Path) -> None:
    """Nothing of it inside this process: trainers, exporters, the proofs of the studio itself, the model server."""
    ordered = order(made(tmp_path / "base", family), data(tmp_path))
    whole, cut = (queue.submit_on_hold(ordered) for _ in range(2))
    elsewhere(whole, cut)
    assert weights(cut) == weights(whole)
    wanted = by_studio(whole.id, QUESTIONS, TOKENS)
    assert [one["text"] for one in wanted] == by_server(whole.id, QUESTIONS, TOKENS) == ANSWERS
    compare(exported(whole, tmp_path, proven=True), wanted, QUESTIONS, TOKENS)


@pytest.mark.rare
@pytest.mark.timeout(6000)
def test_the_starter(
    transformers_4: Transformers4, trained: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that a newcomer makes, with every default; a second one of the same order is stopped half way and
    resumed.
    """
    monkeypatch.setenv("STUDIO_HOME", str(trained["home"]))
    whole = Run(trained["folder"])
    cut = queue.submit_on_hold(whole.config)
    elsewhere(None, cut, run.summary(whole)["steps"] // 2)
    assert weights(cut) == weights(whole)
    asked = [question["messages"] for question in proof.questions(whole.id)]
    questions = [messages[-1]["content"] for messages in asked if len(messages) == 1][:6]
    wanted = by_studio(whole.id, questions, 64)
    alone = [by_studio(whole.id, [question], 64, as_served=True)[0]["text"] for question in questions]
    assert alone == by_server(whole.id, questions, 64)  # in bfloat16 where the processor has it: one answer at a time
    alike = Alike(whole.id)
    found = exported(whole, tmp_path, True, alike)
    compare(found, wanted, questions, 64, alike)
    older(transformers_4, found, wanted, questions, 64)
