"""The jobs that the page and gradio_client call by name: import, inspect, estimate, start, status, stop, chat, …

Every argument is checked here, whatever the page checked before, and each job declares who may call it (rights.py).
A refusal comes as one sentence and one hint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio import config, data, device, preflight, queue, run
from studio.errors import DataError, OrderError
from studio.forecast import calibration, record
from studio.registry import attributes
from studio.talk import chat as server
from studio.ui import files, live, measure, rights, space, uploads, zero
from studio.ui.who import VISITOR, WATCHER

ASKED = ("data.encoding", "data.mapping")  # what the page asks about a file that it has kept


def build() -> None:
    """Declare the jobs. Inside a gr.Blocks."""
    for name, job in {
        "import": import_file,
        "inspect": inspect,
        "estimate": estimate,
        "start": start,
        "status": status,
        "stop": stop,
        "chat": chat,
        "time_device": time_device,
    }.items():
        rights.register(job, name)
    zero.with_gpu(_answered)  # before the launch, when ZeroGPU looks for marked functions


@rights.job(waits=True)
def import_file(file: Any, name: str = "") -> dict[str, Any]:
    """Keep an uploaded data file in the studio; returns {source, name, bytes}.

    file: what gradio_client's handle_file gives. The name is made safe; a second file of a name gets a number.
    Raises DataError when it is no upload or no data.
    """
    path = uploads.uploaded(file)
    try:
        _readable(path)  # refused before it is kept
        target = uploads.keep(path, name or (file.get("orig_name") if isinstance(file, dict) else None) or path.name)
    finally:
        uploads.drop(path)
    return {"source": str(target), "name": target.name, "bytes": target.stat().st_size}


@rights.job(WATCHER, VISITOR, changes=False, waits=True)
def inspect(source: str, format: str = "auto") -> dict[str, Any]:
    """A data file's format, container, rows, problems ({kind: rows}), columns, notes and fingerprint."""
    plain = {"data": {"train": files.text_of(source, "source"), "format": files.text_of(format, "format")}}
    files.allow(config.build(plain))
    dataset = data.read(source, format)
    names = ("format", "container", "rows", "refused", "columns", "unused", "notes", "reason", "fingerprint")
    return attributes(dataset, *names) | {"problems": dataset.counts}


@rights.job(WATCHER, VISITOR, changes=False, waits=True)
def estimate(order: str) -> dict[str, Any]:
    """Memory, time and disk of an order in YAML, with the keys of `python -m studio estimate --json`."""
    run_config = files.order_of(order)
    facts = measure.facts_of(run_config)
    if facts is None:
        hint = "Start a run or a chat with it once, or give a folder."
        raise OrderError(f"{run_config.model.source} is not on this computer yet.", hint, "model")
    here = device.devices()[0]
    return record.forecast(facts, run_config, here, measure.rows_of(run_config), advised=True).model_dump(
        mode="json"
    ) | {"record": record.accuracy(record.finished_runs(here))}


@rights.job()
def start(order: str) -> dict[str, Any]:
    """Queue a run from an order in YAML; returns {run, state}."""
    run_config = files.order_of(order)
    if not run_config.place.remote:
        space.refuse_training()
    preflight.check(run_config)
    return live.changed(queue.submit(run_config))


@rights.job(WATCHER, VISITOR, changes=False)
def status(name: str) -> dict[str, Any]:
    """A run's summary, with the keys of `python -m studio show --json`. name: the run, a part of it, or last."""
    return run.summary(run.find(files.text_of(name, "name")))


@rights.job()
def stop(name: str, discard: bool = False) -> dict[str, Any]:
    """Ask a run to stop after its step and save; with discard, without a result. Returns {run, state}."""
    chosen = run.find(files.text_of(name, "name"))
    return {"run": chosen.id, "state": queue.stop(chosen, discard is True)}


@rights.job(VISITOR, waits=True)
def chat(model: str, prompt: str) -> dict[str, Any]:
    """One answer of a finished run (its id) or of a base (base:MODEL): {answer, tokens, tokens_per_second}."""
    reference, prompt = files.text_of(model, "model"), files.text_of(prompt, "prompt")
    files.allow_model(reference)
    return zero.with_gpu(_answered)(reference, prompt)


def _answered(reference: str, prompt: str) -> dict[str, Any]:
    handle = server.server()
    handle.load([reference])
    text, usage = [], {}
    for chunk in handle.stream(reference, [{"role": "user", "content": prompt}]):
        text.append(chunk.text)
        usage = chunk.usage or usage
    return {"answer": "".join(text), "tokens": usage.get("tokens"), "tokens_per_second": usage.get("tokens_per_second")}


@rights.job(waits=True)
def time_device() -> dict[str, Any]:
    """Time this computer's first device in half a minute; returns {device, rates (FLOP/s by method)}."""
    first = device.devices()[0]
    calibrated = calibration.calibrate(first)
    queue.advance()  # what was ordered meanwhile
    return {"device": first.name, "rates": calibrated.rates}


def _readable(path: Path) -> None:
    """Refuse what is no data; what only asks for a choice on the page may be kept. Raises DataError."""
    try:
        data.read(str(path))
    except DataError as error:
        if error.where not in ASKED:
            raise
