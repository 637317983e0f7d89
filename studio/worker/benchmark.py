"""python -m studio.worker.benchmark ORDER.json: lm-eval asks the base and the tuned model its questions.

Prints a JSON object a line: {kind: doing, side, note}. lm-eval's own model class asks, in this process: a server of the
OpenAI kind tells no likelihood of a given text, which most tasks need.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_EVALUATE_OFFLINE"] = "1"  # metrics from the Hub are programs of others

import httpx2
import torch
from lm_eval import simple_evaluate
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from studio import device
from studio.errors import DeviceError, OrderError, StudioError
from studio.evaluation.results import SIDES
from studio.talk.reference import resolve
from studio.worker import memory
from studio.worker.evaluate import rows_at_once
from studio.worker.lines import emit, run_on_order
from studio.worker.loaded import LoadedModel, LoadedModels

NEAR = 5  # names told where one is not known


def main(order: dict[str, Any]) -> None:
    torch.set_num_threads(device.cores())
    emit("doing", doing="reading the task")
    manager = _tasks(order)
    references, models = {side: resolve(order[side]) for side in SIDES}, LoadedModels()
    for side in SIDES:
        emit("doing", doing=f"loading {side}")
        model = HarnessModel(models.load(references[side]), side, order["chat"])
        emit("doing", doing=f"questions to {side}")
        with _in_words(order["task"]):
            answer = simple_evaluate(
                model,
                tasks=[order["task"]],
                task_manager=manager,
                limit=order["limit"],
                num_fewshot=order["shots"],
                apply_chat_template=order["chat"],
            )
        emit("side", side=side, version=importlib.metadata.version("lm_eval"), **measured(answer))
        if references["tuned"].standalone:
            del model
            models.unload(references[side].name)


# -- the task


def _tasks(order: dict[str, Any]) -> TaskManager:
    """What finds the task, which has been read once: its questions are here. Raises OrderError."""
    if order["is_file"]:
        os.chdir(Path(order["task"]).parent)  # names in the file are meant from there
    manager = TaskManager(include_defaults=not order["is_file"])
    if not order["is_file"] and order["task"] not in manager.task_index:
        near = difflib.get_close_matches(order["task"], manager.all_tasks, NEAR)
        hint = f"Near it: {', '.join(near)}." if near else "Give a task of your own: a file that ends in .yaml."
        raise OrderError(f"lm-eval knows no task {order['task']!r}.", hint, "benchmark")
    with _in_words(order["task"]):
        for name, task in manager.load([order["task"]])["tasks"].items():
            _check(name, task)
    return manager


def _check(name: str, task: Any) -> None:
    """Raise OrderError for a task that would run programs of others."""
    if getattr(task, "UNSAFE_CODE", False):
        hint = "Take another task, or run lm-eval by hand in a place made for that."
        raise OrderError(f"{name} runs the programs that a model writes, on this computer.", hint, "benchmark")
    functions = getattr(task, "_metric_fn_list", None) or {}
    unknown = [metric for metric, function in functions.items() if function is None]
    if unknown and task.config.process_results is None:
        message = f"{name} asks for the metric {unknown[0]}, which lm-eval does not have itself."
        hint = "Metrics of the Hub are programs of others and are not fetched: take one of lm-eval's."
        raise OrderError(message, hint, "benchmark")


@contextlib.contextmanager
def _in_words(task: str) -> Iterator[None]:
    """What lm-eval, a task's file or its functions raise becomes an OrderError that names the task."""
    try:
        yield
    except StudioError:
        raise
    except (ConnectionError, httpx2.HTTPError) as error:
        raise OrderError(
            f"The questions of {task} are on the Hub, which does not answer: {_line(error)}",
            "Check the network, or give a task of your own: a YAML file with dataset_path: json, its rows in a file "
            "beside it.",
            "benchmark",
        ) from error
    except Exception as error:
        hint = "Correct the task's file, or take another task; log.txt beside the results has the whole message."
        raise OrderError(f"lm-eval could not carry out {Path(task).name}: {_line(error)}", hint, "benchmark") from error


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__} {lines[0][:300].rstrip('.')}.".strip()


# -- the model


class HarnessModel(HFLM):
    """A loaded model as lm-eval asks it: in batches as large as memory allows, halved where it runs short."""

    def __init__(self, loaded: LoadedModel, side: str, chat: bool):
        self.loaded = loaded
        self.side = side
        self.chat = chat
        self.is_ready = False
        tokenizer = AutoTokenizer.from_pretrained(loaded.reference.tokenizer)
        tokenizer.chat_template = loaded.reference.template.text
        super().__init__(
            loaded.model, backend="causal", tokenizer=tokenizer, max_length=loaded.context_length, batch_size=1
        )
        self.is_ready = True

    @property
    def model(self) -> Any:
        """None until all is set: lm-eval would tie weights anew, which are tied, under names that adapters change."""
        return self._model if self.is_ready else None

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._ask(super().loglikelihood, requests)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        return self._ask(super().loglikelihood_rolling, requests)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return self._ask(super().generate_until, requests, generates=True)

    def _ask(self, method: Callable[..., list[Any]], requests: list[Any], generates: bool = False) -> list[Any]:
        self.batch_size_per_gpu = self._rows_at_once(requests, generates)
        while True:
            self.set_cache_hook(Counter(self.side, len(requests)))
            try:
                return method(requests, disable_tqdm=True)
            except RuntimeError as error:
                if not memory.is_out_of_memory(error):
                    raise
            memory.empty_cache()
            if self.batch_size_per_gpu == 1:
                hint = "End the chat and other programs on this device, and try again."
                raise DeviceError("There is not enough memory for one question of the benchmark.", hint, "memory")
            self.batch_size_per_gpu //= 2
            emit("note", text=f"Memory was short: {self.batch_size_per_gpu} questions at once from now on.")

    def _rows_at_once(self, requests: list[Any], generates: bool) -> int:
        if generates and hasattr(self.loaded.reference.method, "virtual_tokens"):
            return 1  # peft counts positions through the padding of a batch
        texts = ["".join(part for part in request.args if isinstance(part, str)) for request in requests]
        length = len(self.tok_encode(max(texts, key=len)))
        if generates:
            length += max(request.args[1].get("max_gen_toks", self.max_gen_toks) for request in requests)
        length = min(length, self.max_length)
        return rows_at_once(self.loaded, length, 1 if generates else length)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **settings: Any) -> Any:
        """In a chat the end of a turn ends an answer; a plain text is written on, as in published figures."""
        if self.chat:
            settings.setdefault("eos_token_id", sorted(self.loaded.end_ids))
        return super()._model_generate(context, max_length, stop, **settings)


class Counter(CacheHook):
    """Counts the answers as lm-eval reports each, and emits the count."""

    def __init__(self, side: str, of: int):
        super().__init__(None)
        self.side, self.done, self.of = side, 0, of

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self.done += 1
        emit("doing", doing=f"questions to {self.side}", done=self.done, of=self.of)


# -- the figures


def measured(answer: dict[str, Any]) -> dict[str, Any]:
    """{results, rows} of lm-eval's answer. rows: {task, metric, filter, value, stderr, each, …}; each: by question."""
    results = {
        task: {key: plain for key, value in figures.items() if (plain := _number(value)) is not None}
        for task, figures in answer["results"].items()
    }
    rows = []
    for task, figures in results.items():
        for key, value in figures.items():
            metric, comma, chosen = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                rows.append(
                    {
                        "task": task,
                        "metric": metric,
                        "filter": chosen,
                        "value": value,
                        "stderr": figures.get(f"{metric}_stderr,{chosen}"),
                        "higher_is_better": answer["higher_is_better"].get(task, {}).get(metric),
                        "questions": answer["n-samples"].get(task, {}).get("effective"),
                        "shots": answer["n-shot"].get(task),
                        "version": answer["versions"].get(task),
                        "each": _each(answer["samples"].get(task, ()), metric, chosen),
                    }
                )
    return {"results": results, "rows": rows}


def _each(samples: Any, metric: str, chosen: str) -> list[float]:
    """The metric of every question, in their order; [] where it is none of single questions."""
    values = [_number(sample.get(metric)) for sample in samples if sample["filter"] == chosen]
    return [] if None in values else values


def _number(value: Any) -> float | None:
    """As a float; None for a name, N/A, infinity, and the pair that a metric over all questions keeps of each."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


if __name__ == "__main__":
    run_on_order(main)
