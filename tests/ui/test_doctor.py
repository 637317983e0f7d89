"""The doctor on the page: its card on the Runs tab, what is said of devices before a run, and whose memory is whose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio import device
from studio import doctor as core
from studio.driver import build, fit, sysfs
from studio.driver.build import Build
from studio.errors import DeviceError
from studio.events import Lock
from studio.ui import device as panel
from studio.ui import doctor, tune_summary
from tests.fake_driver import GB, Driver, lost

T4 = {"name": "Tesla T4", "uuid": "GPU-t4", "capability": (7, 5), "memory": 16 * GB}
PART = {
    "part": "lora",
    "name": "LoRA: trains as on the CPU in float32",
    "state": "ok",
    "seconds": 3.0,
    "figures": {"long": [1]},
    "why": "4 variants learn what the CPU learns in float32: losses within 1e-7, gradients alike to 1.0000.",
}


@pytest.fixture
def t4(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(device.DEVICE_VARIABLE, raising=False)
    monkeypatch.setattr(sysfs, "ROOT", tmp_path)
    monkeypatch.setitem(sys.modules, "pynvml", Driver(T4))


def asked(**ask: Any) -> dict[str, Any]:
    return json.loads(doctor.examined(ask).body)


def test_an_examination_begins_and_is_not_begun_twice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_: started.append(words))
    assert asked()["state"] == "none"
    assert doctor.examine() == {"state": "going"}
    assert started[0][1:] == ["-m", "studio", "doctor", "--json"]
    alive = Lock(home / "locks" / "doctor")
    assert alive.acquire()
    with pytest.raises(DeviceError, match="at work already"):
        doctor.examine()
    alive.release()


def test_how_it_stands(home: Path) -> None:
    """From its file, so that one begun in a terminal shows too; without the figures; in the reader's language."""
    answer = {"devices": [], "usable": True, "seconds": 1.0, "parts": [PART], "doing": "Speed", "of": 3}
    alive = Lock(home / "locks" / "doctor")
    assert alive.acquire()
    core._latest().write_text(json.dumps(answer))
    going = asked()
    assert (going["state"], going["answer"]["doing"], going["answer"]["of"]) == ("going", "Speed", 3)
    assert "figures" not in going["answer"]["parts"][0]
    alive.release()
    assert asked()["state"] == "cut off"
    file = core.save_report(answer)
    core._latest().write_text(json.dumps({**answer, "report": str(file)}))
    done = asked(lang="zh")
    assert (done["state"], done["answer"]["file"]) == ("done", file.name)
    assert "梯度" in done["answer"]["parts"][0]["why"]
    assert doctor.doctors_report({}).path == file


def test_a_report_is_only_ever_one_of_ours(home: Path) -> None:
    core._latest().write_text(json.dumps({"parts": [], "report": "/etc/passwd"}))
    answer = doctor.doctors_report({})
    assert b"There is no report yet." in answer.body


@pytest.mark.usefixtures("t4")
def test_a_card_that_torch_cannot_use_is_said_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (fit, build, device):
        monkeypatch.setattr(where, "build", lambda: Build("2.13.0+cpu"))
    begun: list[Any] = []
    monkeypatch.setattr(fit, "ask_in_background", lambda *given: begun.append(given))
    assert "CPU only" in asked()["notices"][0]["text"]
    assert "pip install" in asked()["notices"][0]["hint"]
    assert "CPU only" in tune_summary.summary({})["notices"][0]["text"]
    assert begun[0][1] == {"CUDA_VISIBLE_DEVICES": "GPU-t4"}


@pytest.mark.usefixtures("t4")
def test_torch_is_asked_once_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (fit, build, device):
        monkeypatch.setattr(where, "build", lambda: Build("2.13.0+cu130", "13.0"))
    started: list[list[str]] = []
    monkeypatch.setattr(fit.subprocess, "Popen", lambda words, **_: started.append(words))
    for _ in range(3):
        assert asked()["notices"] == []
    assert len(started) == 1
    fit.store_answer(
        device.devices()[0], {"version": "2.13.0+cu130", "architectures": ["sm_80"], "available": False, "error": None}
    )
    assert "no code for Tesla T4" in asked()["notices"][0]["text"]


@pytest.mark.usefixtures("t4")
def test_a_lost_card_does_not_take_the_page_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver({**T4, "fails": {"nvmlDeviceGetMemoryInfo": lost}}))
    monkeypatch.setitem(panel._seen, "at", float("-inf"))
    assert panel.panel(None)["devices"][0]["kind"] == "cpu"
    assert "left out" in asked()["notices"][0]["text"]


@pytest.mark.usefixtures("t4")
def test_our_own_context_is_not_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver counts a process's context, torch's allocator does not."""
    monkeypatch.setitem(panel._seen, "at", float("-inf"))
    monkeypatch.setattr(
        Driver,
        "nvmlDeviceGetMemoryInfo",
        lambda self, card: SimpleNamespace(total=16 * GB, free=12 * GB),
        raising=False,
    )
    card = panel.panel({"memory_now": 4 * GB - 141 * 2**20})["devices"][0]
    assert (card["mine"], card["others"]) == (4 * GB, 0)
    assert panel.panel(None)["devices"][0]["others"] == 4 * GB
