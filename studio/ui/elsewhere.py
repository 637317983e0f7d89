"""Other devices in the summary: what an order would take on a card that is not here, or on hardware that is rented."""

from __future__ import annotations

from typing import Any

from studio import cards, estimate, places, preflight
from studio.config import RunConfig
from studio.device import Device
from studio.errors import OrderError
from studio.estimate import Estimate
from studio.memory.studio_loop import RowStatistics
from studio.model import ModelFacts


def offer() -> dict[str, Any]:
    """{cards: [{name, memory}], rented: [{name, label, count, memory, price}]}: bytes of a card, dollars an hour."""
    rented = [
        {
            "name": f"{kind}:{name}",
            "label": machine.card or "CPU",
            "count": machine.count,
            "memory": cards.device(machine.card).memory if machine.card else machine.ram,
            "price": machine.price,
        }
        for kind, place in places.PLACES.items()
        for name, machine in place.hardware.items()
    ]
    return {"cards": [{"name": card.name, "memory": card.memory} for card in cards.CARDS], "rented": rented}


def moved(run_config: RunConfig, name: str) -> tuple[RunConfig, Device]:
    """The order as it would be there, and the device. Raises OrderError, DeviceError for what is not on offer."""
    kind, _, hardware = name.partition(":")
    if kind not in places.PLACES or hardware not in places.PLACES[kind].hardware:
        return run_config.with_changes(place="here"), cards.device(name)
    moved_config = run_config.with_changes(place=name)
    device = places.device_of(moved_config.place)
    if device is None:
        raise OrderError(f"What {name} computes with is not known.", "Choose another device.", "place")
    return moved_config, device


def forecast(facts: ModelFacts, run_config: RunConfig, device: Device, rows: RowStatistics | None) -> Estimate:
    """The estimate, with advice where it does not fit. Raises OrderError for settings that the device cannot run."""
    run_config.method.refuse(facts, run_config.training, device)
    preflight.check_settings(run_config, device)
    found = estimate.estimate(facts, run_config, device, rows)
    return found if found.fits else estimate.estimate(facts, run_config, device, rows, advised=True)
