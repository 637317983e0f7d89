"""The doctor's card on the Runs page: start `python -m studio doctor` as a process, follow it, fetch its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, Response

from studio import child_process, credentials, device, doctor
from studio.driver import fit
from studio.errors import DeviceError
from studio.home import subfolder
from studio.ui import rights, words
from studio.ui.live import json_response
from studio.ui.who import VISITOR, WATCHER


@rights.job()
def examine(short: bool = False) -> dict[str, Any]:
    """Start an examination, which outlives the page. Returns {state}. Raises DeviceError while one runs."""
    if doctor.latest()["state"] == "going":
        hint = "Wait until it is done; its progress stands on the Runs page."
        raise DeviceError("The doctor is at work already.", hint, "doctor")
    command = ["-m", "studio", "doctor", "--json", *(["--short"] if short is True else [])]
    with open(subfolder("doctor") / "page.log", "wb") as log:
        child_process.begin_apart(command, log, log, env=credentials.child_environment())
    return {"state": "going"}


@rights.read(WATCHER, VISITOR)
def examined(question: dict[str, Any]) -> Response:
    """{lang} -> {state: none, going, done or cut off, answer, notices}; the figures are left to the report."""
    lang, found = words.language(str(question.get("lang") or "")), doctor.latest()
    answer = found["answer"]
    if answer:
        parts = [
            {
                **{key: part[key] for key in ("part", "name", "state", "seconds")},
                "why": words.translate(part["why"], lang),
            }
            for part in answer["parts"]
        ]
        answer = {key: answer.get(key) for key in ("devices", "usable", "seconds", "doing", "of")} | {
            "parts": parts,
            "file": _file(answer).name,
        }
    return json_response({"state": found["state"], "answer": answer, "notices": notices(lang)})


def notices(lang: str) -> list[dict[str, str]]:
    """What is known of the devices without an examination: {text, hint}. Starts torch's own check."""
    seen = device.scan_devices()
    first = seen.devices[0]
    if first.traits.cards:
        fit.ask_in_background(first, device.environment([first]))
    found: list[Any] = [*([wrong] if (wrong := fit.misfit(first)) else []), *seen.notices]
    return [{"text": words.translate(known.text, lang), "hint": words.translate(known.hint, lang)} for known in found]


@rights.read(WATCHER)
def doctors_report(question: dict[str, Any]) -> Response:
    """The newest report as a file, to send along with a question."""
    answer = doctor.latest()["answer"] or {}
    file = _file(answer)
    return (
        FileResponse(file, media_type="application/octet-stream")
        if file.is_file()
        else Response("There is no report yet.", media_type="text/plain")
    )


def _file(answer: dict[str, Any]) -> Path:
    return subfolder("doctor") / Path(answer.get("report") or "-").name
