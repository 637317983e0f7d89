"""Whether torch can use a card that the driver shows: the reasons told apart, in words, with a command that helps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from studio import config, device, preflight
from studio.driver import build, fit, nvidia, sysfs
from studio.driver.build import Build
from studio.driver.kinds import KINDS
from studio.errors import DeviceError
from studio.forecast import calibration
from studio.worker import torch_devices
from tests.fake_driver import GB, Driver
from tests.worker.carrying import carry, order, rows

T4 = {"name": "Tesla T4", "uuid": "GPU-t4", "capability": (7, 5), "memory": 16 * GB}
V100 = {"name": "Tesla V100-SXM2-16GB", "uuid": "GPU-v100", "capability": (7, 0), "memory": 16 * GB}
BLACKWELL = {"name": "NVIDIA GeForce RTX 5090", "uuid": "GPU-5090", "capability": (12, 0), "memory": 32 * GB}
NEW = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
OLD = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]


@pytest.fixture(autouse=True)
def _nothing_chosen(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in KINDS.values():
        monkeypatch.delenv(kind.visible or "", raising=False)
    monkeypatch.setattr(sysfs, "ROOT", tmp_path / "sys")


def here(monkeypatch: pytest.MonkeyPatch, card: dict[str, Any], made: Build | None, **driver: Any) -> device.Device:
    """The card, its driver, and the installed torch."""
    monkeypatch.setitem(sys.modules, "pynvml", Driver(card, **driver))
    for where in (fit, build, device):
        monkeypatch.setattr(where, "build", lambda: made)
    return device.devices()[0]


def said(**what: Any) -> dict[str, Any]:
    return {
        "version": "2.13.0+cu130",
        "cuda": "13.0",
        "hip": None,
        "xpu": None,
        "architectures": NEW,
        "available": True,
        "error": None,
        "devices": [],
        **what,
    }


def test_the_installed_torch_is_read_without_importing_it() -> None:
    import torch

    made = build.build()
    assert made == Build(torch.__version__, torch.version.cuda, torch.version.hip, torch.version.xpu)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n",
            Build("2.13.0+cu130", "13.0"),
        ),
        (
            "__version__ = '2.9.1+rocm6.4'\ncuda = None\nhip = '6.4.43482'\nxpu: Optional[str] = None\n",
            Build("2.9.1+rocm6.4", None, "6.4.43482"),
        ),
    ],
)
def test_version_files_as_torch_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, wanted: Build
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(text)
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.setattr(
        build, "find_spec", lambda _: type("Spec", (), {"origin": str(tmp_path / "torch" / "__init__.py")})
    )
    assert build.build() == wanted


def test_a_torch_for_the_cpu(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    """Said before a run exists, with the driver, what torch was made for, and the command that helps."""
    one = here(monkeypatch, T4, Build("2.13.0+cpu"), version="550.54.15", cuda=12040)
    found = fit.misfit(one)
    assert found is not None
    assert found.reason == "build"
    assert all(word in found.text for word in ("550.54.15", "12.4", "Tesla T4", "torch 2.13.0 for the CPU only"))
    assert "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126" in found.hint
    with pytest.raises(DeviceError, match="CPU only"):
        preflight.check(config.build({"model": str(tiny_model), "data": {"train": "sample"}}))
    with pytest.raises(DeviceError, match="CPU only"):
        calibration.calibrate(one)


@pytest.mark.parametrize(("card", "hint", "more"), [(T4, "cu126", "580.65"), (BLACKWELL, "cu130", "580.65")])
def test_a_driver_too_old(monkeypatch: pytest.MonkeyPatch, card: dict[str, Any], hint: str, more: str) -> None:
    found = fit.misfit(here(monkeypatch, card, Build("2.13.0+cu130", "13.0"), version="550.54.15", cuda=12040))
    assert found is not None
    assert found.reason == "driver"
    assert all(word in found.text for word in ("550.54.15", "12.4", "CUDA 13.0"))
    assert f"whl/{hint}" in found.hint
    assert more in found.hint


@pytest.mark.parametrize(("made", "cuda"), [("12.8", 12000), ("12.6", 12080), ("12.6", 13000), ("13.0", 13000)])
def test_cudas_minor_versions_go_with_every_driver_of_the_major_one(
    monkeypatch: pytest.MonkeyPatch, made: str, cuda: int
) -> None:
    assert fit.misfit(here(monkeypatch, T4, Build("2.13.0", made), cuda=cuda)) is None


def test_an_architecture_that_was_dropped(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    one = here(monkeypatch, V100, Build("2.13.0+cu130", "13.0"))
    assert fit.misfit(one) is None, "torch has not been asked yet"
    fit.store_answer(one, said(available=False, error="no kernel image is available"))
    found = fit.misfit(one)
    assert found is not None
    assert found.reason == "architecture"
    assert all(word in found.text for word in ("7.0", "sm_75", "580.65.06", "V100"))
    assert "whl/cu126" in found.hint
    with pytest.raises(DeviceError, match="no code for"):
        preflight.check(config.build({"model": str(tiny_model), "data": {"train": "sample"}}))


def test_none_of_these(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    """What may have passed by the next start is said, and left to the trainer to find out."""
    one = here(monkeypatch, T4, Build("2.13.0+cu130", "13.0"))
    fit.store_answer(one, said(available=False, error="CUDA unknown error"))
    found = fit.misfit(one)
    assert found is not None
    assert (found.reason, "CUDA unknown error" in found.text) == ("other", True)
    fit.refuse(one)
    fit.store_answer(one, said())
    assert fit.misfit(one) is None


def test_an_answer_is_of_one_torch_one_driver_one_card(monkeypatch: pytest.MonkeyPatch) -> None:
    fit.store_answer(here(monkeypatch, V100, Build("2.13.0+cu130", "13.0")), said(available=False))
    assert fit.stored_answer(here(monkeypatch, V100, Build("2.13.0+cu130", "13.0"))) is not None
    for card, made, driver in (
        (T4, Build("2.13.0+cu130", "13.0"), {}),
        (V100, Build("2.13.0+cu126", "12.6"), {}),
        (V100, Build("2.13.0+cu130", "13.0"), {"version": "590.1"}),
    ):
        assert fit.stored_answer(here(monkeypatch, card, made, **driver)) is None


@pytest.mark.parametrize(
    ("architectures", "capability", "wanted"),
    [
        (NEW, (7, 5), True),
        (NEW, (7, 0), False),
        (NEW, (8, 9), True),
        (NEW, (12, 1), True),
        (NEW, (13, 0), True),
        (OLD, (12, 0), False),
        (OLD, (7, 0), True),
        (["sm_90a"], (9, 0), True),
        (["sm_90a"], (9, 1), False),
        (["sm_86"], (8, 0), False),
        (["gfx942"], (9, 4), True),
        (["compute_80"], (9, 0), True),
    ],
)
def test_architectures(architectures: list[str], capability: tuple[int, int], wanted: bool) -> None:
    """Code runs on later cards of its generation, PTX on all later ones (NVIDIA's CUDA C++ programming guide, compute
    capabilities).
    """
    assert fit.covers(architectures, capability) is wanted


def test_torch_says_what_it_sees() -> None:
    """The real torch of this computer, asked in a process of its own."""
    import torch

    found = fit.ask(device.cpu(), {"CUDA_VISIBLE_DEVICES": ""})
    assert found["version"] == torch.__version__
    assert (found["available"], found["devices"]) == (False, [])


@pytest.mark.skipif(build.build().kinds != (), reason="this torch could use the card")
def test_a_card_that_does_not_tell_its_free_memory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As some of Intel's do not; here a CPU stands in for one."""

    def refuse(index: int) -> None:
        raise RuntimeError("The device (Intel(R) Arc(TM)) doesn't support querying the available free memory.")

    monkeypatch.setattr(torch.cpu, "mem_get_info", refuse, raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))
    seen = torch_devices.inspect()
    assert (seen["available"], seen["error"], len(seen["devices"])) == (True, None, 1)


@pytest.mark.parametrize("card", [T4, {**BLACKWELL, "capability": (8, 9)}], ids=["fp16", "bf16"])
def test_a_run_says_it_too(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path, card: dict[str, Any]
) -> None:
    """The real trainer, the real torch for CPUs, a driver that shows a card: neither a ValueError nor a training on the
    CPU.
    """
    run = order(tiny_model, rows(tmp_path / "rows.json"))
    monkeypatch.setitem(sys.modules, "pynvml", Driver(card))
    end = carry(run)[-1]
    assert (end["kind"], end["state"], end["reason"]) == ("end", "failed", "device")
    assert "cannot use it" in end["cause"]
    assert "pip install" in end["action"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    torch_devices.refuse_unusable(device.devices()[0])


def test_driver_version_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver(T4, version=b"550.54"))
    assert nvidia.driver() == nvidia.Driver("550.54", (13, 0))
