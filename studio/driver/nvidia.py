"""NVIDIA's cards, asked of the driver (NVML, through nvidia-ml-py).

Numbers are nvidia-smi's, in PCI order; children are told so by CUDA_DEVICE_ORDER and are given their cards by UUID. A card that is
cut by MIG is its slices. What an old library or a card does not know is left open; a card that does not answer is left out.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from studio.driver.card import Card, Notice

VARIABLE = "CUDA_VISIBLE_DEVICES"
LOST = ("lost", "requires restart", "reset required")
SLICES = 8  # at most seven slices of equal size, with an eighth of the memory or more each (NVIDIA's MIG User Guide)
_session: list[Any] = []  # the library whose nvmlInit was called, and in which process


class Driver(NamedTuple):
    """version: of the driver ("550.54.15"); cuda: the newest CUDA it can run, (12, 4). None where it does not tell."""

    version: str | None
    cuda: tuple[int, int] | None


class Lost(Exception):
    """A card has fallen off its bus, or wants to be reset."""


class Place(NamedTuple):
    """A card, or a slice of one: then whole is the card. number: the card's in PCI order; share: of how many equal parts it is taken to be
    one, where nobody tells."""

    handle: Any
    number: int
    uuid: str | None
    whole: Any = None
    share: int = 1


def cards() -> tuple[list[Card], list[Notice]]:
    """The cards that CUDA_VISIBLE_DEVICES lets a process see, in its order; without it, in PCI order."""
    library, notices = _library()
    if library is None:
        return [], notices
    places = _visible(library, _all(library, notices), notices)
    return [card for place in places if (card := _card(library, place, notices)) is not None], notices


def driver() -> Driver:
    """What the driver says of itself."""
    library, _ = _library()
    if library is None:
        return Driver(None, None)
    version, cuda = _ask(library, "nvmlSystemGetDriverVersion"), _ask(library, "nvmlSystemGetCudaDriverVersion")
    return Driver(_text(version), (int(cuda) // 1000, int(cuda) % 1000 // 10) if cuda else None)


def _library() -> tuple[Any, list[Notice]]:
    """The library, ready to be asked; it is set up once a process. None where there is no driver, with a notice where one is broken."""
    try:
        import pynvml
    except ImportError:
        return None, []
    if _session == [pynvml, os.getpid()] and _ask(pynvml, "nvmlDeviceGetCount") is not None:
        return pynvml, []
    _session.clear()
    try:
        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - no driver shows itself in many ways (missing library, no permission); most mean: no card
        if "mismatch" not in str(error).lower():
            return None, []
        return None, [
            Notice(f"NVIDIA's driver does not answer: {error}.", "It was updated while it ran: restart the computer.")
        ]
    _session[:] = [pynvml, os.getpid()]
    return pynvml, []


def _ask(library: Any, name: str, *given: Any) -> Any:
    """One question; None where the library does not know it or the card cannot answer."""
    try:
        return _of_card(library, name, *given)
    except Lost:
        return None


def _of_card(library: Any, name: str, *given: Any) -> Any:
    """As _ask, but raises Lost where the card is gone."""
    try:
        return getattr(library, name)(*given)
    except Exception as error:
        if "lost" in type(error).__name__.lower() or any(word in str(error).lower() for word in LOST):
            raise Lost(str(error) or type(error).__name__) from error
        return None


def _all(library: Any, notices: list[Notice]) -> list[list[Place]]:
    """Each card of the computer: itself, or its slices; empty where it does not answer."""
    found: list[list[Place]] = []
    for number in range(_ask(library, "nvmlDeviceGetCount") or 0):
        try:
            handle = _of_card(library, "nvmlDeviceGetHandleByIndex", number)
            found.append([] if handle is None else _parts(library, handle, number))
            if handle is None:
                notices.append(_gone(number, "it does not answer"))
        except Lost as lost:
            found.append([])
            notices.append(_gone(number, str(lost)))
    return found


def _gone(number: int, why: str) -> Notice:
    return Notice(
        f"Graphics card {number} is left out: {why}.",
        "Restart the computer; if it stays away, look at the card, its power and its cooling.",
    )


def _parts(library: Any, handle: Any, number: int) -> list[Place]:
    """A card as one place, or a place for each of its MIG slices."""
    mode = _of_card(library, "nvmlDeviceGetMigMode", handle)
    if not mode or not mode[0]:
        return [Place(handle, number, _text(_of_card(library, "nvmlDeviceGetUUID", handle)))]
    most = _ask(library, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0
    slices = [_ask(library, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index) for index in range(most)]
    return [
        Place(one, number, _text(_ask(library, "nvmlDeviceGetUUID", one)), handle) for one in slices if one is not None
    ]


def _visible(library: Any, computer: list[list[Place]], notices: list[Notice]) -> list[Place]:
    """Those that the variable names, in its order. As CUDA does, it stops at the first name that is none ("-1" hides all)."""
    named = os.environ.get(VARIABLE)
    if named is None:
        return [place for parts in computer for place in parts]
    chosen: list[Place] = []
    for word in filter(None, (part.strip() for part in named.split(","))):
        if word.isdigit() and int(word) < len(computer):
            place = next(iter(computer[int(word)]), None)  # none where the card is left out: it hides no other
        elif (place := None if word == "-1" else _named(library, computer, word)) is None:
            if word != "-1":
                notices.append(
                    Notice(
                        f"{VARIABLE} names {word}, which the driver does not show.",
                        "`nvidia-smi -L` lists the names; correct the variable or remove it, and start again.",
                    )
                )
            break
        if place is not None and place not in chosen:
            chosen.append(place)
    return chosen


def _named(library: Any, computer: list[list[Place]], word: str) -> Place | None:
    """What a name means: the beginning of a card's or a slice's UUID, or MIG-GPU-uuid/instance/instance."""
    lower, places = word.lower(), [place for parts in computer for place in parts]
    slices = [place for place in places if place.whole is not None]
    if not lower.startswith(("gpu-", "mig-")):
        return None
    for place in places:
        if place.uuid and place.uuid.lower().startswith(lower):
            return place
    card, *instances = lower.removeprefix("mig-").split("/")
    if card.startswith("gpu-"):
        mine = [
            place
            for place in slices
            if (_text(_ask(library, "nvmlDeviceGetUUID", place.whole)) or "").lower().startswith(card)
        ]
        found = next((place for place in mine if _instances(library, place)[: len(instances)] == instances), None)
        return found or (_assumed(library, places, word, card) if lower.startswith("mig-") else None)
    return _assumed(library, places, word, "")


def _instances(library: Any, place: Place) -> list[str]:
    return [
        str(_ask(library, name, place.handle))
        for name in ("nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId")
    ]


def _assumed(library: Any, places: list[Place], word: str, card: str) -> Place | None:
    """A slice that the library does not list: asked for by its name, or taken to be the smallest there can be."""
    handle = _ask(library, "nvmlDeviceGetHandleByUUID", word)
    if handle is not None:
        return Place(handle, -1, word, _ask(library, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle))
    if any(place.whole is not None for place in places):
        return None  # slices are known, and it is none of them
    whole = next((place for place in places if (place.uuid or "").lower().startswith(card)), None)
    return whole and Place(whole.handle, whole.number, word, whole.handle, SLICES)


def _card(library: Any, place: Place, notices: list[Notice]) -> Card | None:
    """What is asked of one card or slice; None, and a notice, where it has gone."""
    handle = place.handle
    try:
        memory = _of_card(library, "nvmlDeviceGetMemoryInfo", handle)
        capability = _of_card(library, "nvmlDeviceGetCudaComputeCapability", handle)
        if capability is None and place.whole is not None:
            capability = _of_card(library, "nvmlDeviceGetCudaComputeCapability", place.whole)
        rates = _of_card(library, "nvmlDeviceGetUtilizationRates", handle)
        temperature = _of_card(library, "nvmlDeviceGetTemperature", handle, getattr(library, "NVML_TEMPERATURE_GPU", 0))
        name = _text(_of_card(library, "nvmlDeviceGetName", handle)) or "NVIDIA card"
    except Lost as lost:
        notices.append(_gone(place.number, str(lost)))
        return None
    total = getattr(memory, "total", 0) // place.share
    if place.share > 1:
        notices.append(
            Notice(
                f"The memory of {place.uuid} is not known: it is taken for {total / 2**30:.0f} GiB, the least a slice of this card has.",
                "Install a newer nvidia-ml-py (pip install --upgrade nvidia-ml-py), and start again.",
            )
        )
    return Card(
        name if place.whole is None or "MIG" in name else f"{name} MIG",
        place.uuid,
        place.number,
        total or None,
        min(total, getattr(memory, "free", 0)) if total else None,
        bool(capability) and tuple(capability) >= (8, 0),
        tuple(capability) if capability else None,
        None if rates is None else int(rates.gpu),
        None if temperature is None else int(temperature),
    )


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
