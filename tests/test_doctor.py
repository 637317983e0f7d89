"""The doctor: parts that crash, hang or are wrong are told apart and stop nobody; the short form passes on this CPU."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from studio import device, doctor
from studio.driver import build, sysfs
from studio.errors import DeviceError, OrderError
from studio.events import Lock
from studio.runs import claim
from studio.worker import doctor as worker
from studio.worker import examine, isolation
from studio.worker.examine_memory import Bench
from studio.worker.trainer import StudioTrainer
from tests.conftest import terminal
from tests.fake_driver import GB, Driver

SHORT = "devices,lora,prompt,dpo,grpo,resume,memory-lora,speed,chat"


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The doctor's short form through the terminal, on the CPU."""
    home = tmp_path_factory.mktemp("doctor")
    os.environ[device.DEVICE_VARIABLE] = "cpu"
    try:
        done = terminal(["doctor", "--short", "--json", "--only", SHORT], home, timeout=500)
    finally:
        os.environ.pop(device.DEVICE_VARIABLE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {**json.loads(done.stdout), "home": home, "said": done.stderr}


def test_the_short_form_passes_here(examined: dict[str, Any]) -> None:
    """As the surface names it."""
    assert examined["usable"] is True
    assert {part["part"]: part["state"] for part in examined["parts"]} == dict.fromkeys(SHORT.split(","), "ok")
    for part in examined["parts"]:
        assert {"part", "name", "state", "seconds", "figures", "why"} == set(part)
        assert part["why"]
        assert part["name"] in examined["said"]
    assert {"kind", "name", "memory", "driver", "torch"} == set(examined["devices"][0])


def test_its_figures(examined: dict[str, Any]) -> None:
    figures = {part["part"]: part["figures"] for part in examined["parts"]}
    variants = figures["lora"]["variants"]
    assert {(one["packing"], one["checkpointing"]) for one in variants} >= {(True, False), (False, False), (True, True)}
    assert all(one["cosine"] > 0.99 for one in variants if not one["plain"])
    assert figures["resume"]["bit_identical"]
    assert figures["memory-lora"]["cases"][0]["measured"] > 0
    assert figures["speed"]["tokens_per_second"] > 0
    assert figures["chat"]["tokens"] > 0


def test_its_report_is_a_file_to_send(examined: dict[str, Any]) -> None:
    told = json.loads(Path(examined["report"]).read_text())
    assert told["parts"] == examined["parts"]
    assert {"system", "python", "torch", "transformers"} <= set(told["versions"])
    assert not list((examined["home"] / "doctor").glob("work-*"))
    assert not list((examined["home"] / "runs").glob("*")) if (examined["home"] / "runs").is_dir() else True


# -- parts that go wrong (functions of a forked process)


def good() -> tuple[str, dict[str, Any]]:
    return "all is well", {"n": 1}


def raises() -> tuple[str, dict[str, Any]]:
    raise ValueError("odd")


def refuses() -> tuple[str, dict[str, Any]]:
    raise DeviceError("No card.", "Buy one.")


def leaves_out() -> tuple[str, dict[str, Any]]:
    raise isolation.PartSkipped("too small")


def wrong() -> tuple[str, dict[str, Any]]:
    raise isolation.PartFailed("off by one", {"by": 1})


def dies() -> tuple[str, dict[str, Any]]:
    os.abort()


def hangs() -> tuple[str, dict[str, Any]]:
    time.sleep(600)
    return good()


@pytest.mark.parametrize(
    ("job", "state", "why"),
    [
        (good, "ok", "all is well"),
        (raises, "failed", "ValueError: odd"),
        (refuses, "failed", "No card. Buy one."),
        (leaves_out, "skipped", "too small"),
        (wrong, "failed", "off by one"),
        (dies, "failed", "signal 6"),
        (hangs, "failed", "not ended after 1 seconds"),
    ],
)
def test_a_part_ends_as_it_ends(job: Any, state: str, why: str) -> None:
    began = time.monotonic()
    outcome = isolation.run_isolated(job, (), 1 if job is hangs else 300)
    assert outcome.state == state
    assert why in outcome.why
    assert time.monotonic() - began < 300


def test_the_others_go_on_behind_a_part_that_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = {"lora": isolation.Outcome("failed", "x", {}), "full": isolation.Outcome("ok", "y", {})}
    monkeypatch.setattr(worker, "run_isolated", lambda job, given, limit: outcomes[given[1]])
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    worker.main({"parts": [["lora", 9], ["full", 9]], "short": True, "work": str(home), "until": time.time() + 100})
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["part"], line["state"]) for line in told] == [
        ("lora", "going"),
        ("lora", "failed"),
        ("full", "going"),
        ("full", "ok"),
    ]


def test_what_no_time_is_left_for_is_left_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither begun nor called a failure, also where the end came in its middle."""
    monkeypatch.setattr(
        worker,
        "run_isolated",
        lambda job, given, limit: time.sleep(limit + 0.1) or isolation.Outcome("failed", "It had not ended", {}),
    )
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    worker.main({"parts": [["lora", 99], ["full", 99]], "short": True, "work": str(home), "until": time.time() + 5.2})
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["state"] for line in told] == ["going", "skipped", "going", "skipped"]


def test_a_worker_that_does_not_start_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device.DEVICE_VARIABLE, "cpu")
    monkeypatch.setattr(doctor, "WORKER", "studio.worker.nothing_of_this_name")
    answer = doctor.check(["lora", "speed"])
    assert [part["state"] for part in answer["parts"]] == ["failed", "failed"]
    assert "nothing_of_this_name" in answer["parts"][0]["why"]


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("loss", "loss is off"),
        ("gradient", "gradient points elsewhere"),
        ("crash", "RuntimeError: on the wrong device"),
    ],
)
def test_a_method_that_computes_wrongly_is_found(
    home: Path, monkeypatch: pytest.MonkeyPatch, fault: str, word: str
) -> None:
    """Packed rows are made to go wrong; the doctor names the variants, and that the padded ones are right."""
    monkeypatch.setenv(device.DEVICE_VARIABLE, "cpu")
    sound = StudioTrainer.micro_batch_loss

    def spoilt(self: StudioTrainer, model: Any, micro_batch: dict[str, Any]) -> Any:
        found = sound(self, model, micro_batch)
        if not self.layout.packed:
            return found
        if fault == "crash":
            raise RuntimeError("on the wrong device")
        return found * 1.1 if fault == "loss" else 2 * found.detach() - found  # the same loss, uphill

    monkeypatch.setattr(StudioTrainer, "micro_batch_loss", spoilt)
    with pytest.raises(isolation.PartFailed, match=word) as told:
        examine.method(Bench(home, True), "lora")
    assert {one["packing"] for one in told.value.figures["variants"] if one["wrong"]} == {True}


def test_a_card_that_torch_cannot_use(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first part says which of the reasons it is, and what to install."""
    if build.build().cuda:
        pytest.skip("this torch is made for CUDA")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sysfs, "ROOT", tmp_path)
    monkeypatch.setitem(
        sys.modules, "pynvml", Driver({"name": "Tesla T4", "uuid": "GPU-t4", "capability": (7, 5), "memory": 16 * GB})
    )
    with pytest.raises(isolation.PartFailed, match="pip install torch"):
        examine.devices(Bench(home, True))


# -- the order of things


def test_parts_and_groups() -> None:
    assert [part.part for part in doctor.select_parts(["memory", "lora"])] == [
        "lora",
        "memory-lora",
        "memory-qlora",
        "memory-full",
    ]
    assert len(doctor.select_parts(["methods"])) == 8
    assert [part.part for part in doctor.select_parts(["stages"])] == ["dpo", "kto", "orpo", "reward", "grpo"]
    assert doctor.select_parts() == list(doctor.PARTS)
    with pytest.raises(OrderError, match="no part 'lorra'"):
        doctor.select_parts(["lorra"])


def test_never_beside_a_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device.DEVICE_VARIABLE, "cpu")
    lock = claim.device_lock(device.devices()[0])
    assert lock.acquire()
    with pytest.raises(DeviceError, match="in use"):
        doctor.check()
    lock.release()
    assert doctor.latest()["state"] == "none"
    alive = Lock(home / "locks" / "doctor")
    assert alive.acquire()
    with pytest.raises(DeviceError, match="at work already"):
        doctor.check()
    assert doctor.latest()["state"] == "going"
    alive.release()
