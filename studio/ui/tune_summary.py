"""The summary card of an order: model, data, method, steps, memory by cause, time, disk; or what is wrong with it."""

from __future__ import annotations

from typing import Any

from studio import auto_values, config, device, places, preflight
from studio.base import source
from studio.config import RunConfig
from studio.device import Device
from studio.errors import DataError, StudioError
from studio.estimate import Estimate
from studio.forecast import record
from studio.memory import tables
from studio.registry import attributes
from studio.text import sandbox
from studio.ui import doctor, elsewhere, files, measure, space, words
from studio.ui.singleflight import Unanswered

Summary = dict[str, Any]


def summary(order: Any, lang: str = "en", other: str | None = None) -> Summary:
    """Everything the card shows. For an invalid order `fault` says what is wrong, `missing` what is to be chosen.

    other: a device of elsewhere.offer() on which memory, time and cost are looked at; the order stays as it is.
    """
    hosting = space.space()
    answer: Summary = {
        "device": _device(None),
        "here": _device(None),
        "lang": lang,
        "service": None,
        "missing": None,
        "fault": None,
        "blocked": words.say(space.blocked_reason(hosting) or "", lang) or None,
        "note": words.say(space.note(hosting) or "", lang) or None,
        "duplicate": hosting.duplicate if hosting else None,
        "notices": doctor.notices(lang),
        "auto": {},
        "elsewhere": {"name": other} if other else None,
    }
    if not measure.names_data(order):
        return answer | {"missing": "data"}
    try:
        run_config = config.build(order)
        files.allow(run_config)
    except StudioError as error:
        return answer | {"fault": words.explain(error, lang)}
    answer |= {
        "rate": run_config.learning_rate,
        "yaml": run_config.to_yaml(),
        "place": run_config.place.address if run_config.place.remote else None,
    }
    if run_config.place.remote:
        # where nothing can be trained here, it can be there
        answer |= {"device": _device(run_config), "here": _device(run_config), "blocked": None, "notices": []}
    for part in (_model, _data, _refusals, _forecast):
        try:
            with sandbox.allowance():
                answer |= part(run_config, answer)
        except Unanswered as error:
            answer["service"] = answer["service"] or words.translate(str(error), lang)
        except StudioError as error:
            answer["fault"] = answer["fault"] or words.explain(error, lang)
    for name in ("rows", "lang"):
        answer.pop(name, None)
    return answer


def _device(run_config: RunConfig | None) -> dict[str, Any] | None:
    """What the order trains on; None where another computer has not told yet."""
    return _plain_device(places.device_of(run_config.place) if run_config else device.devices()[0])


def _plain_device(target: Device | None) -> dict[str, Any] | None:
    return target and attributes(target, "kind", "name", "memory", "free")


def _cost(run_config: RunConfig, seconds: float | None) -> dict[str, float] | None:
    """US dollars for the run, and an hour, where the place has a price."""
    machine = run_config.place.machine() if run_config.place.remote else None
    return {"run": machine.cost(seconds), "hour": machine.price} if machine and machine.price else None


def _model(run_config: RunConfig, answer: Summary) -> Summary:
    facts = measure.facts_of(run_config)
    if facts is None:
        return {
            "model": {"local": False, "kind": run_config.model.kind},
            "service": words.translate(measure.unanswered_by(run_config) or "", answer["lang"]) or None,
        }
    trainable = run_config.method.trainable(facts)
    return {
        "model": {
            "local": source.local(run_config.model) is not None,
            "kind": run_config.model.kind,
            "parameters": facts.parameters,
            "layers": facts.num_hidden_layers,
            "hidden": facts.hidden_size,
            "bytes": facts.bytes,
            "max_length": facts.max_position_embeddings,
            "architecture": facts.architecture,
        },
        "trainable": trainable,
        "share": trainable / max(1, facts.parameters),
    }


def _data(run_config: RunConfig, answer: Summary) -> Summary:
    sources = run_config.data.sources()
    found = [measure.read(one.source, run_config) for one in sources]
    usable = sum(
        len(one.decide(run_config.data.problems).conversations) * item.weight
        for one, item in zip(found, sources, strict=True)
    )
    held = measure.held_out(run_config, usable)
    train = round(usable) - held
    if train < 1:
        raise DataError("No row is left to train on.", "Look at the problems on the Data tab.", "data.train")
    return {
        "data": {
            "rows": sum(one.rows for one in found),
            "train": train,
            "held": held,
            "format": found[0].format,
            "problems": sum(sum(one.counts.values()) for one in found),
            "refused": sum(one.refused for one in found),
        },
        "steps": run_config.steps(train),
        "effective": run_config.training.effective_batch(train),
        "accumulation": run_config.training.accumulation_steps(train),
        "rows": measure.rows_of(run_config),
        "auto": _plain(auto_values.of_data(run_config, found[0])),
    }


def _plain(values: auto_values.AutoValues) -> dict[str, dict[str, Any]]:
    return {key: value._asdict() for key, value in values.items()}


def _refusals(run_config: RunConfig, answer: Summary) -> Summary:
    preflight.check(run_config)
    return {}


def _forecast(run_config: RunConfig, answer: Summary) -> Summary:
    """Memory, time, disk and advice on the order's device, or on the other one that is looked at."""
    facts, on, rows = measure.facts_of(run_config), places.device_of(run_config.place), answer.get("rows")
    if facts is None:
        return {}
    here, answered = device.devices()[0], {}
    if on is not None:
        expected = record.forecast(facts, run_config, here, rows)
        answered = {"auto": answer["auto"] | _plain(auto_values.auto_values(run_config, facts, on, rows, expected))}
        if not expected.fits and not answer["elsewhere"]:  # what would help takes twenty estimates more
            expected = record.forecast(facts, run_config, here, rows, advised=True)
    if answer["elsewhere"]:
        try:
            moved_config, on = elsewhere.moved(run_config, answer["elsewhere"]["name"])
            answered |= {"device": _plain_device(on), "cost": None}
            expected = elsewhere.forecast(facts, moved_config, on, rows)
        except StudioError as error:
            return answered | {"elsewhere": answer["elsewhere"] | {"fault": words.explain(error, answer["lang"])}}
        return answered | _figures(expected) | {"cost": _cost(moved_config, expected.seconds)}
    if on is None:
        return answered
    accuracy = None if run_config.place.remote else record.accuracy(record.finished_runs(here))
    return answered | _figures(expected) | {"record": accuracy, "cost": _cost(run_config, expected.seconds)}


MEMORY = {"total", "low", "high", "by_cause", "fits", "free", "explained", "processes", "limits"}


def _figures(expected: Estimate) -> Summary:
    return {
        "memory": expected.model_dump(include=MEMORY) | {"peak": expected.peak_phase},
        "seven": tables.seven(),
        "seconds": expected.seconds,
        "speed_from": expected.speed_from,
        "disk": expected.disk or None,
        "advice": [remedy.model_dump(include={"change", "text", "saves", "cost"}) for remedy in expected.advice],
    }
