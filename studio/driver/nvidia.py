"""NVIDIA's cards, read from the driver (NVML, through nvidia-ml-py).

Indexes are nvidia-smi's, in PCI order; child processes get CUDA_DEVICE_ORDER and their cards by UUID. A card in
MIG mode is listed as its slices. Values that an old library or a card does not support are None; a card that does
not answer is omitted.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from studio.driver.card import Card, Notice
from studio.errors import reason_of

VARIABLE = "CUDA_VISIBLE_DEVICES"
LOST = ("lost", "requires restart", "reset required")
SLICES = 8  # at most seven slices of equal size, with an eighth of the memory or more each (NVIDIA's MIG User Guide)
_session: list[Any] = []  # [library, process id] of the last nvmlInit


class Driver(NamedTuple):
    """version: of the driver ("550.54.15"); cuda: the newest CUDA version it supports, (12, 4). None if unknown."""

    version: str | None
    cuda: tuple[int, int] | None


class Lost(Exception):
    """A card has fallen off its bus or needs a reset."""


class Unit(NamedTuple):
    """A card or a MIG slice.

    number: the card's index in PCI order; card: the handle of a slice's card; share: of how many equal parts of
    the card's memory a slice is assumed to have one, 1 if its memory is known.
    """

    handle: Any
    number: int
    uuid: str | None
    card: Any = None
    share: int = 1


def cards() -> tuple[list[Card], list[Notice]]:
    """The cards that CUDA_VISIBLE_DEVICES allows, in its order; without it all, in PCI order."""
    library, notices = _library()
    if library is None:
        return [], notices
    units = _visible(library, _units_by_card(library, notices), notices)
    return [card for unit in units if (card := _card(library, unit, notices)) is not None], notices


def driver() -> Driver:
    """The driver's versions."""
    library, _ = _library()
    if library is None:
        return Driver(None, None)
    version, cuda = _query(library, "nvmlSystemGetDriverVersion"), _query(library, "nvmlSystemGetCudaDriverVersion")
    return Driver(_text(version), (int(cuda) // 1000, int(cuda) % 1000 // 10) if cuda else None)


def _library() -> tuple[Any, list[Notice]]:
    """The initialised library, once per process. None without a driver, with a notice if it is broken."""
    try:
        import pynvml
    except ImportError:
        return None, []
    if _session == [pynvml, os.getpid()] and _query(pynvml, "nvmlDeviceGetCount") is not None:
        return pynvml, []
    _session.clear()
    try:
        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - many errors mean that there is no driver
        if "mismatch" not in str(error).lower():
            return None, []
        return None, [
            Notice(
                f"NVIDIA's driver does not answer: {reason_of(error)}.",
                "It was updated while it ran: restart the computer.",
            )
        ]
    _session[:] = [pynvml, os.getpid()]
    return pynvml, []


def _query(library: Any, name: str, *arguments: Any) -> Any:
    """Call a function of the library; None if it does not exist or the card does not support it."""
    try:
        return _query_card(library, name, *arguments)
    except Lost:
        return None


def _query_card(library: Any, name: str, *arguments: Any) -> Any:
    """As _query, but raises Lost if the card is lost."""
    try:
        return getattr(library, name)(*arguments)
    except Exception as error:
        if "lost" in type(error).__name__.lower() or any(word in str(error).lower() for word in LOST):
            raise Lost(str(error) or type(error).__name__) from error
        return None


def _units_by_card(library: Any, notices: list[Notice]) -> list[list[Unit]]:
    """The card itself or its slices, for each card of the computer; empty where the card does not answer."""
    by_card: list[list[Unit]] = []
    for number in range(_query(library, "nvmlDeviceGetCount") or 0):
        try:
            handle = _query_card(library, "nvmlDeviceGetHandleByIndex", number)
            by_card.append([] if handle is None else _units_of_card(library, handle, number))
            if handle is None:
                notices.append(_lost_card_notice(number, "it does not answer"))
        except Lost as lost:
            by_card.append([])
            notices.append(_lost_card_notice(number, str(lost)))
    return by_card


def _lost_card_notice(number: int, why: str) -> Notice:
    return Notice(
        f"Graphics card {number} is left out: {why}.",
        "Restart the computer; if it stays away, look at the card, its power and its cooling.",
    )


def _units_of_card(library: Any, handle: Any, number: int) -> list[Unit]:
    """A card as one unit, or a unit for each of its MIG slices."""
    mode = _query_card(library, "nvmlDeviceGetMigMode", handle)
    if not mode or not mode[0]:
        return [Unit(handle, number, _text(_query_card(library, "nvmlDeviceGetUUID", handle)))]
    count = _query(library, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0
    slices = [_query(library, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index) for index in range(count)]
    return [
        Unit(mig, number, _text(_query(library, "nvmlDeviceGetUUID", mig)), handle) for mig in slices if mig is not None
    ]


def _visible(library: Any, computer: list[list[Unit]], notices: list[Notice]) -> list[Unit]:
    """The units that the variable names, in its order. Like CUDA, it stops at the first invalid name ("-1": none)."""
    value = os.environ.get(VARIABLE)
    if value is None:
        return [unit for parts in computer for unit in parts]
    chosen: list[Unit] = []
    for word in filter(None, (part.strip() for part in value.split(","))):
        if word.isdigit() and int(word) < len(computer):
            unit = next(iter(computer[int(word)]), None)  # None if the card is omitted; it hides no other
        elif (unit := None if word == "-1" else _unit_named(library, computer, word)) is None:
            if word != "-1":
                notices.append(
                    Notice(
                        f"{VARIABLE} names {word}, which the driver does not show.",
                        "`nvidia-smi -L` lists the names; correct the variable or remove it, and start again.",
                    )
                )
            break
        if unit is not None and unit not in chosen:
            chosen.append(unit)
    return chosen


def _unit_named(library: Any, computer: list[list[Unit]], word: str) -> Unit | None:
    """The unit for a name: the start of a card's or slice's UUID, or MIG-GPU-uuid/instance/instance."""
    lower, units = word.lower(), [unit for parts in computer for unit in parts]
    slices = [unit for unit in units if unit.card is not None]
    if not lower.startswith(("gpu-", "mig-")):
        return None
    for unit in units:
        if unit.uuid and unit.uuid.lower().startswith(lower):
            return unit
    card_uuid, *instances = lower.removeprefix("mig-").split("/")
    if card_uuid.startswith("gpu-"):
        slices_of_card = [
            unit
            for unit in slices
            if (_text(_query(library, "nvmlDeviceGetUUID", unit.card)) or "").lower().startswith(card_uuid)
        ]
        match = next(
            (unit for unit in slices_of_card if _instances(library, unit)[: len(instances)] == instances), None
        )
        return match or (_unlisted_slice(library, units, word, card_uuid) if lower.startswith("mig-") else None)
    return _unlisted_slice(library, units, word, "")


def _instances(library: Any, unit: Unit) -> list[str]:
    return [
        str(_query(library, name, unit.handle))
        for name in ("nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId")
    ]


def _unlisted_slice(library: Any, units: list[Unit], word: str, card_uuid: str) -> Unit | None:
    """A slice that the library does not list: queried by its name, or assumed to be the smallest possible one."""
    handle = _query(library, "nvmlDeviceGetHandleByUUID", word)
    if handle is not None:
        return Unit(handle, -1, word, _query(library, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle))
    if any(unit.card is not None for unit in units):
        return None  # slices are listed, and it is not among them
    sliced = next((unit for unit in units if (unit.uuid or "").lower().startswith(card_uuid)), None)
    return sliced and Unit(sliced.handle, sliced.number, word, sliced.handle, SLICES)


def _card(library: Any, unit: Unit, notices: list[Notice]) -> Card | None:
    """Read a card's or slice's properties; None, with a notice, if it is lost."""
    handle = unit.handle
    try:
        memory = _query_card(library, "nvmlDeviceGetMemoryInfo", handle)
        capability = _query_card(library, "nvmlDeviceGetCudaComputeCapability", handle)
        if capability is None and unit.card is not None:
            capability = _query_card(library, "nvmlDeviceGetCudaComputeCapability", unit.card)
        rates = _query_card(library, "nvmlDeviceGetUtilizationRates", handle)
        temperature = _query_card(
            library, "nvmlDeviceGetTemperature", handle, getattr(library, "NVML_TEMPERATURE_GPU", 0)
        )
        name = _text(_query_card(library, "nvmlDeviceGetName", handle)) or "NVIDIA card"
    except Lost as lost:
        notices.append(_lost_card_notice(unit.number, str(lost)))
        return None
    total = getattr(memory, "total", 0) // unit.share
    if unit.share > 1:
        notices.append(
            Notice(
                f"The memory of {unit.uuid} is not known: it is taken for {total / 2**30:.0f} GiB, the "
                "least a slice of "
                "this card has.",
                "Install a newer nvidia-ml-py (pip install --upgrade nvidia-ml-py), and start again.",
            )
        )
    return Card(
        name if unit.card is None or "MIG" in name else f"{name} MIG",
        unit.uuid,
        unit.number,
        total or None,
        min(total, getattr(memory, "free", 0)) if total else None,
        bool(capability) and tuple(capability) >= (8, 0),
        tuple(capability) if capability else None,
        None if rates is None else int(rates.gpu),
        None if temperature is None else int(temperature),
    )


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
