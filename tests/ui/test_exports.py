"""Taking a run away from its page: one process an export, told by files, never a file of another run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from studio.errors import StudioError
from studio.export import folders
from studio.home import subfolder
from studio.ui import exports
from tests.ui.fakes import FakeRun

RUN = "2026-11-22-1200-mine"
START, REFUSE = subprocess.Popen, folders.refuse
WRITES = (
    "import json, pathlib, sys, time; out = pathlib.Path(sys.argv[1]); "
    "print('packing…', file=sys.stderr, flush=True); time.sleep(0.5); "
    "out.write_bytes(b'zip'); print(json.dumps({'path': str(out), 'bytes': 3, 'note': '', 'proof': {'agree': "
    "20, 'prompts': 20}}))"
)


@pytest.fixture(autouse=True)
def finished(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(RUN, steps=20)
    run.start(alive=False)
    run.train().finish()
    monkeypatch.setattr("studio.talk.reference.resolve", lambda name: None)
    monkeypatch.setattr("studio.export.folders.refuse", lambda found, kind, precision: "")


def exporter(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """What stands for `python -m studio export RUN OUT …`."""

    def started(command: list[str], **options: Any) -> Any:
        return START([sys.executable, "-c", script, command[5]], **options)

    monkeypatch.setattr("subprocess.Popen", started)


def state(kind: str = "adapter") -> dict[str, Any]:
    return orjson.loads(exports.taken({"id": RUN}).body)["exports"][kind]


def ended(kind: str = "adapter") -> dict[str, Any]:
    until = time.monotonic() + 20
    while (now := state(kind))["state"] == "going" and time.monotonic() < until:
        time.sleep(0.05)
    return now


def test_an_export_goes_on_by_itself_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter(monkeypatch, WRITES)
    assert state()["state"] == "none"
    exports.take_away(RUN, "adapter")
    assert state()["state"] == "going"
    with pytest.raises(StudioError):
        exports.take_away(RUN, "adapter")
    done = ended()
    assert (done["state"], done["answer"]["file"]) == ("done", True)
    assert Path(done["answer"]["path"]).is_relative_to(subfolder("exports"))
    assert exports.download({"id": RUN, "kind": "adapter"}).path == done["answer"]["path"]


def test_a_refusal_and_a_crash_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter(
        monkeypatch,
        (
            "import json; print(json.dumps({'error': {'message': 'The disk is too small.', 'hint': 'Free some "
            "space.', 'where': 'OUT'}}))"
        ),
    )
    exports.take_away(RUN, "merged")
    assert ended("merged")["error"]["message"] == "The disk is too small."
    exporter(monkeypatch, "import os, sys; print('merging…', file=sys.stderr, flush=True); os._exit(9)")
    exports.take_away(RUN, "merged")
    assert ended("merged")["state"] == "failed"


@pytest.mark.parametrize(
    ("name", "kind"), [("../x", "adapter"), (RUN, "pickle"), ("nobody", "gguf"), (RUN, "../../etc")]
)
def test_what_cannot_be_taken(name: str, kind: str) -> None:
    with pytest.raises(StudioError):
        exports.take_away(name, kind)
    assert exports.download({"id": name, "kind": kind}).status_code == 404


def test_k_quants_are_offered_where_the_quantizer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def started(command: list[str], **options: Any) -> Any:
        asked.append(command)
        return START([sys.executable, "-c", WRITES, command[5]], **options)

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("studio.export.llama_cpp.installed", lambda: [])
    monkeypatch.setattr("studio.export.folders.refuse", REFUSE)
    assert orjson.loads(exports.taken({"id": RUN}).body)["quantizer"] is False
    with pytest.raises(StudioError, match="not installed") as refused:
        exports.take_away(RUN, "gguf-q4-imatrix")
    assert "pip install xllamacpp" in refused.value.hint
    monkeypatch.setattr("studio.export.llama_cpp.installed", lambda: ["xllamacpp"])
    monkeypatch.setattr("studio.export.folders.refuse", lambda found, kind, precision: "")
    assert orjson.loads(exports.taken({"id": RUN}).body)["quantizer"] is True
    exports.take_away(RUN, "gguf-q4-imatrix")
    assert asked[0][-3:] == ["--precision", "q4_k_m", "--imatrix"]
    assert ended("gguf-q4-imatrix")["state"] == "done"


def test_an_export_that_was_cut_off_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter(monkeypatch, "import os, sys; print('merging…', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)")
    exports.take_away(RUN, "merged")
    assert ended("merged")["error"] == {"message": "The export was cut off before it was done.", "hint": "merging…"}
