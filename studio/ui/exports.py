"""Exports of a run, from its page: `python -m studio export` as a process of its own, which outlives the page.

exports/RUN/KIND.json holds its answer, KIND.log its messages; KIND.lock is held while it runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, Response

from studio import child_process, credentials
from studio.errors import ExportError, StudioError
from studio.events import Lock, is_locked
from studio.export import folders as export
from studio.export import llama_cpp
from studio.export import report as page_report
from studio.home import numbered, subfolder
from studio.ui import live, rights, words
from studio.ui.translated_html import translated
from studio.ui.who import VISITOR, WATCHER

BITS = {"": "f16", "-q8": "q8_0", "-q6": "q6_k", "-q5": "q5_k_m", "-q4": "q4_k_m"}
IMATRIX = "-imatrix"  # at the end of a kind: columns are weighed by what training rows put through them
K_QUANTS = [f"gguf{end}" for end, precision in BITS.items() if "_k" in precision]
KINDS = {
    "adapter": ("adapter", ""),
    "merged": ("merged", ""),
    **{f"gguf{end}": ("gguf", precision) for end, precision in BITS.items()},
    **{kind + IMATRIX: ("gguf", BITS[kind.removeprefix("gguf")]) for kind in K_QUANTS},
    "ollama": ("ollama", ""),
}


@rights.job(waits=True)
def take_away(name: str, kind: str) -> dict[str, Any]:
    """Begin an export of a finished run. kind: one of KINDS. Returns {run, kind}; how it goes is read with `taken`."""
    run_ = live.get_run(name)
    if kind not in KINDS:
        raise ExportError(f"There is no export {kind!r}.", f"Kinds: {', '.join(KINDS)}.", "kind")
    folder = _folder(run_.id)
    lock = Lock(folder / f"{kind}.lock")
    if not lock.acquire():
        raise ExportError("This export is being written already.", "Wait until it is done.", "kind")
    try:
        from studio.talk.reference import resolve

        export.refuse(resolve(run_.id), *KINDS[kind])
        _begin(run_.id, folder, kind, lock)
    finally:
        lock.release()
    return {"run": run_.id, "kind": kind}


def _begin(name: str, folder: Path, kind: str, lock: Lock) -> None:
    """Begin the command that exports a run into a folder; it holds the lock while it runs."""
    to, precision = KINDS[kind]
    out = next(path for path in numbered(folder, kind) if not path.exists())
    command = ["-m", "studio", "export", name, str(out), "--to", to, "--json"]
    command += ["--precision", precision] if precision else []
    command += ["--imatrix"] if kind.endswith(IMATRIX) else []
    with (
        open(folder / f"{kind}.json", "wb") as answer,
        open(folder / f"{kind}.log", "wb") as log,
        credentials.handed_over(*credentials.HUB) as secrets,
    ):
        descriptors = (*secrets.get("pass_fds", ()), lock.descriptor)
        child_process.begin_apart(command, answer, log, **secrets | {"pass_fds": descriptors})


@rights.read(WATCHER, VISITOR)
def taken(question: dict[str, Any]) -> Response:
    """The state of each export of a run: {exports: {kind: {state, said, answer}}, quantizer (of K-quants)}."""
    try:
        run_ = live.run_of(question)
    except StudioError as error:
        return live.json_response({"exports": {}, "error": str(error)})
    answer = {
        "exports": {kind: _state(_folder(run_.id), kind) for kind in KINDS},
        "quantizer": bool(llama_cpp.installed()),
    }
    return live.json_response(answer)


def _state(folder: Path, kind: str) -> dict[str, Any]:
    going = is_locked(folder / f"{kind}.lock")
    try:
        last_line = (folder / f"{kind}.log").read_text(errors="replace").strip().splitlines()[-1:]
        text = (folder / f"{kind}.json").read_text(errors="replace")
    except OSError:
        return {"state": "none"}
    if going:
        return {"state": "going", "said": last_line[0] if last_line else ""}
    try:
        answer = json.loads(text)
    except ValueError:
        return {
            "state": "failed",
            "error": {
                "message": "The export was cut off before it was done.",
                "hint": last_line[0] if last_line else "",
            },
        }
    if "error" in answer:
        return {"state": "failed", "error": answer["error"]}
    return {
        "state": "done",
        "answer": {**answer, "file": Path(answer["path"]).is_file(), "there": Path(answer["path"]).exists()},
    }


@rights.read(WATCHER, waits=True)
def download(question: dict[str, Any]) -> Response:
    """The file of a finished export, or with kind `report` the run's report as one HTML file."""
    try:
        run_, kind = live.run_of(question), str(question.get("kind"))
        if kind == "report":
            return Response(
                translated(page_report.report(run_), words.language(question.get("lang"))),
                media_type="text/plain; charset=utf-8",
                headers={"X-Content-Type-Options": "nosniff"},
            )
        state = _state(_folder(run_.id), kind) if kind in KINDS else {"state": "none"}
    except StudioError as error:
        return Response(str(error), status_code=404, media_type="text/plain")
    if state["state"] != "done" or not state["answer"]["file"]:
        return Response("There is no such file.", status_code=404, media_type="text/plain")
    return FileResponse(state["answer"]["path"], media_type="application/octet-stream")


def _folder(identity: str) -> Path:
    path = subfolder("exports") / identity
    path.mkdir(exist_ok=True)
    return path
