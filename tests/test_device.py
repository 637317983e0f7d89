"""Devices, asked of drivers that are simpler than the real ones."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from studio import auto, config, device, model, preflight
from studio.driver import sysfs
from studio.driver.build import Build
from studio.driver.kinds import KINDS
from studio.estimate import estimate
from studio.forecast import duration
from studio.memory.studio_loop import RowStatistics
from studio.resolve import resolve
from studio.runs import claim, launch
from tests.fake_driver import GB, Driver, NVMLError, Sliced, amd, intel, lost

T4 = {"name": "Tesla T4", "uuid": "GPU-aaaa", "capability": (7, 5), "memory": 16 * GB, "load": 7}
L4 = {"name": "NVIDIA L4", "uuid": "GPU-bbbb", "capability": (8, 9), "memory": 16 * GB, "load": 7}
SMALL = {"name": "NVIDIA GeForce GTX 1650", "uuid": "GPU-small", "capability": (7, 5), "memory": 4 * GB}
LARGE = {"name": "NVIDIA GeForce RTX 3090", "uuid": "GPU-large", "capability": (8, 6), "memory": 24 * GB}
GB10 = {"name": "NVIDIA GB10", "uuid": "GPU-gb10", "capability": (12, 1)}
H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-whole",
    "capability": (9, 0),
    "memory": 80 * GB,
    "slices": [
        {"name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "uuid": "MIG-one", "memory": 10 * GB, "instance": 7},
        {"name": "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "uuid": "MIG-three", "memory": 40 * GB, "instance": 2},
    ],
}


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No card is chosen by the environment, and the computer's own cards stay out."""
    for kind in KINDS.values():
        monkeypatch.delenv(kind.visible or "", raising=False)
    for name in ("ROCR_VISIBLE_DEVICES", device.DEVICE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sysfs, "ROOT", tmp_path)
    monkeypatch.setitem(sys.modules, "pynvml", Driver())


def collate(monkeypatch: pytest.MonkeyPatch, *cards: dict[str, Any], kind: type[Driver] = Driver) -> Driver:
    driver = kind(*cards)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    return driver


def test_cpu_tells_its_memory() -> None:
    here = device.cpu()
    assert here.kind == here.id == here.torch == "cpu"
    assert 0 < here.free <= here.memory
    assert here.cores >= 1
    (only,) = device.devices()
    assert only.model_copy(update={"free": here.free}) == here


@pytest.mark.parametrize(
    ("limit", "used", "stat"),
    [
        ("memory.max", "memory.current", "anon 1\ninactive_file {}\n"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "inactive_file 7\ntotal_inactive_file {}\n"),
    ],
)
def test_the_cache_of_files_read_is_free_in_a_container(
    limit: str, used: str, stat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that has read a model's weights: a limit of 1.5 GB, 1.45 of it used, 1.2 of that file cache."""
    files = {limit: str(1_500_000_000), used: str(1_450_000_000), str(Path(used).with_name("memory.stat")): stat}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.format(1_200_000_000))
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    here = device.cpu()
    assert (here.memory, here.free) == (1_500_000_000, 1_250_000_000)


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["Tesla T4", "NVIDIA L4"]),
        ("1", ["NVIDIA L4"]),
        ("1,0", ["NVIDIA L4", "Tesla T4"]),
        ("GPU-bbbb", ["NVIDIA L4"]),
        ("GPU-b", ["NVIDIA L4"]),
        ("0,-1,1", ["Tesla T4"]),
        ("0,7,1", ["Tesla T4"]),
        ("0,0", ["Tesla T4"]),
        (" 1 , GPU-aaaa", ["NVIDIA L4", "Tesla T4"]),
        ("-1", None),
        ("", None),
    ],
)
def test_cuda(monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str] | None) -> None:
    collate(monkeypatch, T4, L4)
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
    assert [one.torch for one in found] == [f"cuda:{place}" for place in range(len(names))]


@pytest.mark.parametrize("visible", [None, "0,1", "1", "GPU-large"])
def test_lock_memory_precision_and_training_are_of_one_card(
    monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    """CUDA and driver number cards differently: a process is given its card by the driver's name for it."""
    collate(monkeypatch, SMALL, LARGE)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for one in device.devices():
        card = SMALL if one.name == SMALL["name"] else LARGE
        assert (one.memory, one.bf16) == (card["memory"], card is LARGE)
        assert device.environment([one]) == {"CUDA_VISIBLE_DEVICES": card["uuid"]}
        assert claim.device_lock(one).path.name == f"device-{card['uuid']}"
        with monkeypatch.context() as inside:
            inside.setenv("CUDA_VISIBLE_DEVICES", card["uuid"])
            assert [(two.name, two.torch, claim.device_key(two)) for two in device.devices()] == [
                (one.name, "cuda:0", card["uuid"])
            ]
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_the_largest_card_is_taken_where_none_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    collate(monkeypatch, SMALL, LARGE)
    assert [(one.name, one.torch) for one in device.devices()] == [(LARGE["name"], "cuda:1"), (SMALL["name"], "cuda:0")]


def test_the_cpu_can_be_chosen_beside_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    collate(monkeypatch, T4)
    monkeypatch.setenv("STUDIO_DEVICE", "cpu")
    assert [one.kind for one in device.devices()] == ["cpu"]


@pytest.mark.parametrize(
    ("visible", "wanted"),
    [
        (None, [("MIG-three", 40), ("MIG-one", 10)]),
        ("MIG-three", [("MIG-three", 40)]),
        ("MIG-GPU-whole/7/0", [("MIG-one", 10)]),
        ("0", [("MIG-one", 10)]),
        ("GPU-whole", [("MIG-one", 10)]),
        ("MIG-three,MIG-one", [("MIG-three", 40), ("MIG-one", 10)]),
        ("MIG-none", []),
    ],
)
def test_mig(monkeypatch: pytest.MonkeyPatch, visible: str | None, wanted: list[tuple[str, int]]) -> None:
    """A card that is cut is its slices, each with its own memory."""
    collate(monkeypatch, H100, kind=Sliced)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = device.scan_devices()
    assert [(one.uuid, one.memory // GB) for one in seen.devices if one.kind == "cuda"] == wanted
    assert all(one.bf16 and one.capability == (9, 0) and "MIG" in one.name for one in seen.devices if wanted)
    assert wanted or visible in seen.notices[0].text


@pytest.mark.parametrize("visible", ["MIG-1234", "MIG-GPU-whole/1/0"])
def test_a_slice_that_an_old_library_does_not_know_is_no_whole_card(
    monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    collate(monkeypatch, H100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = device.scan_devices()
    assert [(one.kind, one.memory // GB, device.environment([one])) for one in seen.devices] == [
        ("cuda", 10, {"CUDA_VISIBLE_DEVICES": visible})
    ]
    assert "not known" in seen.notices[0].text


def test_a_name_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    collate(monkeypatch, T4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-zzz")
    seen = device.scan_devices()
    assert [one.kind for one in seen.devices] == ["cpu"]
    assert "GPU-zzz" in seen.notices[0].text


def test_unified_memory_is_the_computers(monkeypatch: pytest.MonkeyPatch) -> None:
    collate(monkeypatch, GB10)
    one, ram = device.devices()[0], device.cpu()
    assert (one.kind, one.shared, one.memory, one.bf16) == ("cuda", True, ram.memory, True)
    assert 0 < one.free <= ram.memory


@pytest.mark.parametrize(
    "where",
    [
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetTemperature",
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_one_lost_card_does_not_take_the_others(monkeypatch: pytest.MonkeyPatch, where: str, place: int) -> None:
    cards = [T4, L4]
    cards[place] = {**cards[place], "fails": {where: lost}}
    collate(monkeypatch, *cards)
    seen = device.scan_devices()
    assert [one.name for one in seen.devices] == [cards[1 - place]["name"]]
    assert f"card {place}" in seen.notices[0].text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [one.name for one in device.devices()] == [cards[1 - place]["name"]]


def test_all_cards_lost_leave_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    collate(monkeypatch, {**T4, "fails": {"nvmlDeviceGetMemoryInfo": lost}})
    seen = device.scan_devices()
    assert [one.kind for one in seen.devices] == ["cpu"]
    assert seen.notices


def test_the_driver_is_set_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = collate(monkeypatch, T4), Driver(L4)
    for _ in range(5):
        device.devices()
    assert first.started == 1
    monkeypatch.setitem(sys.modules, "pynvml", second)
    assert [one.name for one in device.devices()] == ["NVIDIA L4"]
    assert (first.started, second.started) == (1, 1)


def test_a_driver_that_was_updated_under_way_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Driver):
        def nvmlInit(self) -> None:
            raise NVMLError("Driver/library version mismatch")

    collate(monkeypatch, T4, kind=Broken)
    seen = device.scan_devices()
    assert seen.devices[0].kind == "cpu"
    assert "restart" in seen.notices[0].hint


def made_for(monkeypatch: pytest.MonkeyPatch, **what: str) -> None:
    monkeypatch.setattr(device, "build", lambda: Build("2.13.0", **what))


def test_rocm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """AMD's cards, from the kernel's plain files; torch calls them cuda."""
    amd(tmp_path, 0, vram=16 * GB, gfx=100300, device="0x73bf")
    amd(tmp_path, 1, vram=24 * GB, used=2 * GB)
    made_for(monkeypatch, hip="7.2")
    large, small = device.devices()
    assert (large.kind, large.torch, large.memory, large.free, large.bf16, large.utilisation) == (
        "rocm",
        "cuda:1",
        24 * GB,
        22 * GB,
        True,
        3,
    )
    assert (small.torch, small.bf16, small.precision) == ("cuda:0", False, "fp16")
    assert device.environment([large]) == {"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "1"}
    assert claim.device_key(large) == "GPU-abc1"
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    assert [(one.torch, claim.device_key(one)) for one in device.devices()] == [("cuda:0", "GPU-abc1")]
    assert device.environment(device.devices())["HIP_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "GPU-abc1")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "0")
    assert [claim.device_key(one) for one in device.devices()] == ["GPU-abc1"]


def test_amd_processor_with_graphics_counts_the_memory_it_may_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    amd(tmp_path, vram=GB // 2, used=0, cores=16, gfx=110501)
    made_for(monkeypatch, hip="7.2")
    assert device.devices()[0].memory == 32 * GB + GB // 2


@pytest.mark.parametrize(("vram", "said"), [(24 * GB, True), (GB // 2, False)])
def test_a_card_that_this_torch_cannot_use_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vram: int, said: bool
) -> None:
    """Not silently the CPU. What sits in a laptop's processor is no card to speak of."""
    amd(tmp_path, vram=vram)
    made_for(monkeypatch)
    seen = device.scan_devices()
    assert seen.devices[0].kind == "cpu"
    assert [("AMD" in note.text, "rocm" in note.hint) for note in seen.notices] == [(True, True)] * said


def test_xpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    intel(tmp_path, 0, vram=None)
    intel(tmp_path, 1)
    made_for(monkeypatch, xpu="20250300")
    card, inside = device.devices()
    assert (card.kind, card.torch, card.memory, card.bf16, card.shared) == ("xpu", "xpu:0", 16 * GB, True, False)
    assert inside.shared
    assert device.environment([card]) == {"ZE_AFFINITY_MASK": "0"}
    monkeypatch.setenv("ZE_AFFINITY_MASK", "1")
    assert [one.shared for one in device.devices()] == [True]


@pytest.mark.parametrize(("system", "bf16"), [("15.1", True), ("13.6", False)])
def test_mps(monkeypatch: pytest.MonkeyPatch, system: str, bf16: bool) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.mac_ver", lambda: (system, ("", "", ""), "arm64"))
    one = device.devices()[0]
    assert (one.kind, one.torch, one.bf16, one.precision) == ("mps", "mps", bf16, "bf16" if bf16 else "fp32")


# -- the table


def of_kind(kind: str) -> device.Device:
    """A device of a kind, new enough for bf16, with 24 GB."""
    return device.cpu().model_copy(
        update={
            "kind": kind,
            "name": f"a {kind}",
            "memory": 24 * GB,
            "free": 24 * GB,
            "bf16": kind != "cpu",
            "capability": (8, 6) if kind == "cuda" else None,
            "uuid": None if kind in ("cpu", "mps") else "GPU-x",
        }
    )


@pytest.mark.parametrize("name", ["lora", "full", "qlora", "adapter", "prefix", "p_tuning", "prompt", "ia3"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_settles_every_method(home: Path, tiny_model: Path, kind: str, name: str) -> None:
    """Every place that treats devices unlike, walked: refusals, memory, time, settings, locks, the trainer's
    environment.
    """
    one, facts = of_kind(kind), model.facts(tiny_model)
    order = config.build({"model": str(tiny_model), "data": {"train": "none.json"}, "method": name})
    if name == "qlora" and not KINDS[kind].quantizes:
        with pytest.raises(config.OrderError, match="bitsandbytes"):
            order.method.refuse(facts, order.training, one)
        return
    order.method.refuse(facts, order.training, one)
    preflight.check_settings(order, one)
    settled = resolve(order, facts, one, {"rows": 100, "tokens": 10_000, "trained": 5_000, "max": 300})
    assert settled.device == KINDS[kind].torch
    assert settled.dtype == ("float32" if kind == "cpu" else "bfloat16")
    assert ("paged" in settled.optimizer) <= KINDS[kind].pages
    for bf16 in (True, False):
        found = estimate(facts, order, one.model_copy(update={"bf16": bf16}), RowStatistics(100, 10_000, 5_000, 300))
        assert found.total > 0
        assert found.seconds > 0
    assert duration.speed(one, 2).rate > 0
    assert claim.device_key(one) == (kind if kind in ("cpu", "mps") else "GPU-x")
    both = {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
    assert set(device.environment([one])) == (both if kind in ("rocm", "cpu") else {KINDS[kind].visible} - {None})
    assert launch.processes(order.with_changes(training={"devices": 3}), [one]) == (1 if KINDS[kind].cards else 3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cpu"])
def test_every_kind_without_bf16(tiny_model: Path, kind: str) -> None:
    old = of_kind(kind).model_copy(update={"bf16": False})
    order = config.build({"data": {"train": "none.json"}})
    assert auto.precision(order, old) == {"fp16": "float16", "fp32": "float32"}[KINDS[kind].half]
    with pytest.raises(config.OrderError, match="bf16"):
        auto.precision(order.with_changes(training={"precision": "bf16"}), old)


def test_cores_of_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPU_CORES", "2.0")
    assert device.cores() == 2


def test_the_real_library_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pynvml")
    real = importlib.import_module("pynvml")
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        assert device.scan_devices().devices[0].kind == "cpu"
    assert real.nvmlInit
