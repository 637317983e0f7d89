"""estimate, devices: what an order will take, and what there is to take it from."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from studio import auto_values, cards, config, data, estimate, model, new_tokens, places
from studio.base import shards, source
from studio.base.quantization import refuse_stored
from studio.commands import Commands, add_settings, counted, size
from studio.data.record import changes
from studio.device import Device, devices, scan_devices
from studio.driver import fit
from studio.errors import OrderError, StudioError
from studio.forecast import calibration, duration, record
from studio.memory import tables
from studio.memory.studio_loop import RowStatistics
from studio.tokens import Encoder


def add(commands: Commands) -> None:
    parser = commands.add("estimate", "memory, time and disk of an order, before it starts", run, show)
    parser.add_argument("config", type=Path, nargs="?", help="the order, a YAML file")
    parser.add_argument(
        "--explain", action="store_true", help="the page on memory: an 8B model line by line, and the tutorials' table"
    )
    add_settings(parser)
    parser.add_argument("--device", metavar="NAME", help="a card that need not be here, such as 'NVIDIA A10G'")
    parser.add_argument("--memory", metavar="SIZE", help="a card with this much memory, such as 24GB")
    listed = commands.add("devices", "accelerators of this computer, and known cards", list_devices, show_devices)
    listed.add_argument(
        "--measure",
        action="store_true",
        help="time this computer's device for some seconds, for better estimates of time",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The estimate of an order under the names of the surface; --explain: the page on memory, as {"markdown": …}."""
    if args.explain:
        return {"markdown": tables.page()}
    if args.config is None:
        hint = "Write `python -m studio estimate ORDER.yaml`, or --explain for the page on memory."
        raise OrderError("No order was given.", hint, "config")
    order = config.load(args.config, args.settings)
    facts = model.facts_of(order.model)
    if facts.quantizer:
        refuse_stored(facts.quantizer)
    rows, data_record = statistics(order)
    if args.device or args.memory:
        other = cards.device(args.device, args.memory)
        expected = estimate.estimate(facts, order, other, rows, advised=True)
        return expected.model_dump(mode="json") | {
            "data": data_record,
            "auto": _autos(order, facts, other, rows, expected),
        }
    device = devices()[0]
    expected = record.forecast(facts, order, device, rows, advised=True)
    on = places.device_of(order.place)
    autos = _autos(order, facts, on, rows, expected) if on else {}
    answer = expected.model_dump(mode="json") | {"data": data_record, "auto": autos}
    if order.place.remote:
        machine = order.place.machine()
        return answer | {"price": machine.price, "cost": machine.cost(expected.seconds)}
    return answer | {"record": record.accuracy(record.finished_runs(device))}


def _autos(
    order: config.RunConfig,
    facts: model.ModelFacts,
    on: Device,
    rows: dict[str, int] | None,
    expected: estimate.Estimate,
) -> dict[str, Any]:
    """What each auto comes to: {key: {value, why}}."""
    found = auto_values.auto_values(order, facts, on, RowStatistics.of(rows), expected)
    return {key: value._asdict() for key, value in found.items()}


def statistics(order: config.RunConfig) -> tuple[dict[str, int] | None, dict[str, Any] | None]:
    """(figures, record) of the order's data, encoded as the trainer will.

    Figures are None, with a word on standard error, where data or tokenizer are not here; where the data cannot be
    trained on, the record is {"error": {…}}.
    """
    folder = source.local(order.model)
    if folder is None or (shards.bare(folder) and not (folder / "tokenizer.json").is_file()):
        print(
            "The model's tokenizer is not here: no rows are counted, every row is taken for as long as allowed.",
            file=sys.stderr,
        )
        return None, None
    try:
        prepared = data.prepare(
            order.data,
            Encoder.from_order(order.data, folder, num_virtual_tokens=order.virtual_tokens),
            order.training.seed,
        )
        told = ("dropped", "reasons", "cut", "left_out", "tokens_lost", "unseen_tokens")
        return prepared.statistics, {key: prepared.record[key] for key in told if key in prepared.record}
    except StudioError as error:
        print(
            f"The data cannot be trained on as it is; every row is taken for as long as allowed. {error}",
            file=sys.stderr,
        )
        return None, {"error": error.as_dict()}


def show(answer: dict[str, Any]) -> None:
    if "markdown" in answer:
        print(answer["markdown"])
        return
    print(
        f"{size(answer['total'])} expected ({size(answer['low'])} to {size(answer['high'])}), "
        f"peak at {answer['peak_phase']}; "
        f"{'fits' if answer['fits'] else 'does NOT fit'} {answer['device']} with {size(answer['free'])} free"
    )
    for cause, count in sorted(answer["by_cause"].items(), key=lambda item: -item[1]):
        print(f"  {cause:<12} {size(count):>12}   {answer['explained'].get(cause, '')}")
    print(f"trains {answer['trainable']:,} of {answer['parameters']:,} parameters; {size(answer['disk'])} on disk")
    if answer["seconds"]:
        print(
            f"about {answer['seconds'] / 60:.1f} minutes: {counted(answer['steps'], 'step')} "
            f"of {answer['seconds_per_step']:.2f} s (from {answer['speed_from']})"
        )
    if answer.get("cost") is not None:
        print(f"about ${answer['cost']:.2f} at ${answer['price']:.2f} an hour, setting up not counted")
    told = answer.get("data") or {}
    for sentence in filter(None, (*changes(told), new_tokens.describe_unseen(told.get("unseen_tokens", [])))):
        print(sentence)
    for key, found in answer["auto"].items():
        value = "" if found["value"] is None else f" {json.dumps(found['value'], ensure_ascii=False)}"
        print(f"{key}: auto,{value} ({found['why']})")
    refused = "error" in (answer.get("data") or {})
    for key, value in answer["limits"].items():
        if value and not refused:  # else no batch and no length makes it trainable
            print(f"largest {key} that fits: {value}")
    for item in answer["advice"]:
        settings = " ".join(f"--set {key}={value}" for key, value in item["change"].items())
        print(f"- {item['text']} Saves {size(item['saves'])}; costs {item['cost']}. {settings}")


def list_devices(args: argparse.Namespace) -> dict[str, Any]:
    """What is here, and the cards --device knows."""
    seen = scan_devices()
    here = seen.devices
    if args.measure:
        calibration.calibrate(here[0])
    listed = [card.model_dump(mode="json") | {"speed": _timed(card)} for card in here]
    unusable = fit.misfit(here[0])
    notices = [
        {"text": notice.text, "hint": notice.hint} for notice in (*([unusable] if unusable else []), *seen.notices)
    ]
    return {
        "here": listed,
        "notices": notices,
        "known": [{"name": card.name, "memory": card.memory} for card in cards.CARDS],
    }


def _timed(device: Device) -> dict[str, float] | None:
    calibrated = duration.calibrated(device)
    return None if calibrated is None else calibrated.rates


def show_devices(answer: dict[str, Any]) -> None:
    for seen in answer["here"]:
        print(f"{seen['kind']}: {seen['name']}, {size(seen['memory'])}, {size(seen['free'])} free")
        if seen["speed"]:
            print("  timed: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in seen["speed"].items()))
    for note in answer["notices"]:
        print(f"- {note['text']} {note['hint']}".rstrip())
    print("known to --device:", ", ".join(card["name"] for card in answer["known"]))
