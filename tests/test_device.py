"""Devices, asked of a driver that is simpler than the real one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from studio import device


def test_cpu_tells_its_memory() -> None:
    here = device.cpu()
    assert here.kind == here.id == "cpu"
    assert 0 < here.free <= here.memory
    assert here.cores >= 1


class Driver(SimpleNamespace):
    """Two cards; the first is too old for bf16."""

    NVMLError = RuntimeError
    NVML_TEMPERATURE_GPU = 0
    cards = ({"name": "Tesla T4", "uuid": "GPU-aaaa", "capability": (7, 5)}, {"name": "NVIDIA L4", "uuid": "GPU-bbbb", "capability": (8, 9)})

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, n: int) -> dict:
        return self.cards[n]

    def nvmlDeviceGetUUID(self, card: dict) -> str:
        return card["uuid"]

    def nvmlDeviceGetName(self, card: dict) -> str:
        return card["name"]

    def nvmlDeviceGetMemoryInfo(self, card: dict) -> SimpleNamespace:
        return SimpleNamespace(total=16 << 30, free=15 << 30)

    def nvmlDeviceGetCudaComputeCapability(self, card: dict) -> tuple[int, int]:
        return card["capability"]

    def nvmlDeviceGetUtilizationRates(self, card: dict) -> SimpleNamespace:
        return SimpleNamespace(gpu=7)

    def nvmlDeviceGetTemperature(self, card: dict, _: int) -> int:
        raise RuntimeError("not supported")


@pytest.mark.parametrize(("visible", "names"), [
    (None, ["Tesla T4", "NVIDIA L4"]), ("1", ["NVIDIA L4"]), ("1,0", ["NVIDIA L4", "Tesla T4"]), ("GPU-bbbb", ["NVIDIA L4"]), ("-1", None), ("", None)])
def test_cuda(monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str] | None) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = device.devices()
    if names is None:
        assert [one.kind for one in found] == ["cpu"]
        return
    assert [one.name for one in found] == names
    assert [one.bf16 for one in found] == [name != "Tesla T4" for name in names]
    assert found[0].utilisation == 7
    assert found[0].temperature is None


def test_cores_of_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPU_CORES", "2.0")
    assert device.cores() == 2
