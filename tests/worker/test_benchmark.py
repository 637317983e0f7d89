"""Benchmarks on the tiny model: every figure against lm-eval's own on plain transformers and peft."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio import benchmark, side_job
from studio.errors import DeviceError, OrderError, StudioError
from studio.evaluation import harness
from studio.home import PROJECT
from studio.run import Run
from studio.talk.reference import resolve
from studio.worker import benchmark as worker
from studio.worker.loaded import LoadedModels
from tests.worker.carrying import carry, order, rows

pytestmark = pytest.mark.usefixtures("home")
TASKS = PROJECT / "docs" / "benchmarks"
AT_ONCE = 16  # rows on a processor
LINES = """
task: lines
dataset_path: json
dataset_kwargs: {data_files: {test: lines.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The worker in this process, in float32; returns what it emitted of late."""
    emitted: list[dict[str, Any]] = []

    def carry_out(job: side_job.SideJob, module: str, worker_order: dict[str, Any], *_: Any) -> list[dict[str, Any]]:
        assert module == benchmark.WORKER
        emitted.clear()
        worker.main(json.loads(json.dumps(worker_order)))
        return [event for event in emitted if event["kind"] != "doing"]

    monkeypatch.chdir(tmp_path)  # a worker goes to the task's folder, and this process comes back
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)  # runs pip for seconds
    monkeypatch.setattr(
        worker, "emit", lambda kind, **fields: emitted.append(json.loads(json.dumps({"kind": kind, **fields})))
    )
    monkeypatch.setattr(worker, "LoadedModels", lambda: LoadedModels("cpu", torch.float32))
    monkeypatch.setattr(side_job.SideJob, "carry_out", carry_out)
    return emitted


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A task of whole texts in a folder of its own."""
    folder = tmp_path / "lines"
    folder.mkdir()
    texts = [f"The number is {n}, and the next one is {n + 1}." for n in range(5)]
    (folder / "lines.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "lines.yaml").write_text(LINES)
    return folder / "lines.yaml"


def tuned(model: Path, tmp_path: Path, *settings: str) -> Run:
    run = order(model, rows(tmp_path / "rows.json"), "training.max_steps=4", *settings)
    carry(run)
    return run


def measure(run: Run, task: Path, **settings: Any) -> dict[str, Any]:
    return benchmark.measure(run, harness.order_of({"task": str(task), **settings}))


def plain(model: Any, folder: Path, task: Path, batch: int = AT_ONCE, **settings: Any) -> dict[str, Any]:
    """lm-eval's results of a task from transformers' own model and tokenizer."""
    lm = HFLM(model, tokenizer=AutoTokenizer.from_pretrained(folder), backend="causal", batch_size=batch)
    found = simple_evaluate(lm, tasks=[str(task)], task_manager=TaskManager(include_defaults=False), **settings)
    return {
        name: {key: value for key, value in figures.items() if isinstance(value, float)}
        for name, figures in found["results"].items()
    }


def figures(side: dict[str, Any]) -> dict[str, Any]:
    return {task: {key: value for key, value in found.items() if "," in key} for task, found in side.items()}


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "full"])
def test_figures_are_lm_evals_own(
    method: str, tiny_model: Path, tmp_path: Path, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Choices, whole texts and free answers, of the base and of an adapter (or of full weights): equal to the bit."""
    run = tuned(tiny_model, tmp_path, f"method.name={method}")
    other = AutoModelForCausalLM.from_pretrained(run.result if method == "full" else tiny_model)
    model = other if method == "full" else PeftModel.from_pretrained(other, run.result)
    for task in (TASKS / "capitals.yaml", TASKS / "opposites.yaml", lines):
        found = measure(run, task)
        monkeypatch.chdir(task.parent)
        batch = 1 if method == "prompt" and task.stem == "opposites" else AT_ONCE
        if method == "lora":
            base = AutoModelForCausalLM.from_pretrained(tiny_model)
            assert figures(found["base"]) == plain(base, tiny_model, task)
        assert figures(found["tuned"]) == plain(model, tiny_model, task, batch)
        for row in found["table"]:
            for side in benchmark.SIDES:
                named = found[side][row["task"]]
                assert row[side]["value"] == named[f"{row['metric']},none"]
                assert row[side]["stderr"] == named.get(f"{row['metric']}_stderr,none")
            assert row["difference"]["value"] == row["tuned"]["value"] - row["base"]["value"]
    assert [one["name"] for one in benchmark.results(run)] == ["lines.yaml", "opposites.yaml", "capitals.yaml"]


def test_chat_template_examples_and_limit_are_lm_evals(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tuned(tiny_model, tmp_path)
    found = measure(run, TASKS / "capitals.yaml", chat=True, shots=0, limit=6)
    monkeypatch.chdir(TASKS)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), run.result)
    expected = plain(model, run.result, TASKS / "capitals.yaml", apply_chat_template=True, num_fewshot=0, limit=6)
    assert figures(found["tuned"]) == expected
    without = measure(run, TASKS / "capitals.yaml", limit=6)
    assert {row["questions"] for row in without["table"]} == {6}
    assert [one["chat"] for one in benchmark.results(run)] == [False, True], "one measurement beside the other"
    measure(run, TASKS / "capitals.yaml", limit=6)
    assert len(benchmark.results(run)) == 2, "the same order again takes the earlier one's place"


@pytest.mark.parametrize("settings", [("data.new_tokens=[<|a|>,<|b|>]",), ("method.name=qlora",)])
def test_new_tokens_and_bases_in_four_bits(settings: tuple[str, ...], tiny_model: Path, tmp_path: Path) -> None:
    found = measure(tuned(tiny_model, tmp_path, *settings), TASKS / "capitals.yaml")
    assert {row["metric"] for row in found["table"]} == {"acc", "acc_norm"}


def test_short_memory_halves_the_batch_and_changes_no_figure(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: list[dict[str, Any]]
) -> None:
    run = tuned(tiny_model, tmp_path)
    whole = measure(run, TASKS / "capitals.yaml")
    call, room = HFLM._model_call, 4

    def short(self: Any, inputs: torch.Tensor, **more: Any) -> torch.Tensor:
        if len(inputs) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return call(self, inputs, **more)

    monkeypatch.setattr(worker.HarnessModel, "_model_call", short)
    found = measure(run, TASKS / "capitals.yaml")
    assert found["tuned"] == whole["tuned"]
    assert "4 questions at once" in found["notes"][-1]
    room = 0
    with pytest.raises(DeviceError, match="not enough memory"):
        measure(run, TASKS / "capitals.yaml")


def test_a_file_may_run_functions_and_says_so(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(TASKS, folder)
    (folder / "shouting.py").write_text("def loud(doc):\n    return doc['question'].upper()\n")
    text = (folder / "capitals.yaml").read_text()
    line = 'doc_to_text: "Question: {{question}}\\nAnswer:"'
    assert line in text
    (folder / "loud.yaml").write_text(text.replace(line, "doc_to_text: !function shouting.loud"))
    run = tuned(tiny_model, tmp_path)
    assert measure(run, folder / "loud.yaml")["functions"] == ["shouting.loud"]


def test_mistakes_in_a_file_are_words(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(TASKS, folder)
    text = (folder / "capitals.yaml").read_text()
    run = tuned(tiny_model, tmp_path)
    for broken, words in (
        (text.replace("{{question}}", "{{nothing}}"), "'nothing' is undefined"),
        (text.replace("metric: acc\n", "metric: no_such_metric\n"), "no_such_metric, which lm-eval does not have"),
    ):
        (folder / "broken.yaml").write_text(broken)
        with pytest.raises(OrderError, match=words):
            measure(run, folder / "broken.yaml")
    assert benchmark.job(run).status()["state"] == "failed"


def test_a_stop_before_the_end_keeps_the_earlier_figures(tiny_model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    run = tuned(tiny_model, tmp_path)
    first = measure(run, TASKS / "capitals.yaml")

    def stopped(job: side_job.SideJob, *_: Any) -> None:
        raise job.stopped()

    monkeypatch.setattr(side_job.SideJob, "carry_out", stopped)
    with pytest.raises(StudioError, match="stopped as asked"):
        measure(run, TASKS / "opposites.yaml")
    assert [one["at"] for one in benchmark.results(run)] == [first["at"]]
    assert benchmark.job(run).status()["state"] == "stopped", "no failure: it was asked for"


def test_a_generation_with_virtual_tokens_is_asked_alone(tiny_model: Path, tmp_path: Path) -> None:
    """peft counts positions through a batch's padding: prompts of unlike length would be answered differently."""
    run = tuned(tiny_model, tmp_path, "method.name=p_tuning")
    model = worker.HarnessModel(LoadedModels("cpu", torch.float32).load(resolve(run.id)), "tuned", chat=False)
    request = type("Request", (), {"args": ("The opposite of hot is", {"until": ["."], "max_gen_toks": 4})})
    assert model._rows_at_once([request], generates=True) == 1
    assert model._rows_at_once([request], generates=False) == AT_ONCE
