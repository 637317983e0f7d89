"""After an out-of-memory: ranked changes of the order with the predicted saving of each, the effective batch kept."""

from __future__ import annotations

from typing import Any

from studio import events, model
from studio.base import source
from studio.config import RunConfig
from studio.device import devices
from studio.errors import StudioError
from studio.estimate import estimate
from studio.run import Run


def repairs(run: Run) -> list[dict[str, Any]]:
    """[{change: {section: {key: value}}, text, saves, cost, resumes}], the greatest saving among those that resume
    first.

    saves: bytes by the estimate, None where the model's files are not at hand. resumes: whether the run can go on from
    its checkpoint with it; the others change the rows or the weights and need a new run.
    """
    config = run.config
    plan = events.last(run.events_file, ("plan",)) or {}
    before = _bytes(config, plan)
    found = []
    for change, text, cost, resumes in _changes(config, plan):
        try:
            after = _bytes(config.with_changes(**change), plan)
        except StudioError:
            continue  # this method or model does not take the change
        saves = before - after if before is not None and after is not None else None
        if saves is None or saves > 0:
            found.append({"change": change, "text": text, "saves": saves, "cost": cost, "resumes": resumes})
    return sorted(found, key=lambda item: (not item["resumes"], -(item["saves"] or 0)))


def _changes(config: RunConfig, plan: dict[str, Any]) -> list[tuple[dict[str, Any], str, str, bool]]:
    """(change, what it is in words, what it costs in words, whether a checkpoint can be resumed with it)."""
    training = config.training
    found: list[tuple[dict[str, Any], str, str, bool]] = []
    effective = plan.get("effective_batch") or (
        training.batch_size * (training.accumulation if training.accumulation != "auto" else 4)
    )
    checkpointing = (
        {}
        if training.checkpointing is True or plan.get("checkpointing") or not config.method.allows_checkpointing
        else {"checkpointing": True}
    )
    batch = training.batch_size
    while batch > 1:
        batch = batch // 2
        if effective % batch == 0:
            found.append(
                (
                    {"training": {"batch_size": batch, "accumulation": effective // batch}},
                    f"Batch size {batch} with accumulation {effective // batch} (still {effective} rows a step)",
                    "somewhat slower",
                    True,
                )
            )
    if checkpointing:
        found.append(({"training": checkpointing}, "Gradient checkpointing on", "about a third slower", True))
        if training.batch_size > 1:
            found.append(
                (
                    {"training": {**checkpointing, "batch_size": 1, "accumulation": effective}},
                    f"Gradient checkpointing on and batch size 1 with accumulation {effective}",
                    "a third slower or more",
                    True,
                )
            )
    if training.loss == "full":
        found.append(({"training": {"loss": "chunked"}}, "Chunked loss", "nothing", True))
    if config.data.max_length > 256:
        shorter = config.data.max_length // 2
        found.append(
            (
                {"data": {"max_length": shorter}},
                f"Rows of at most {shorter} tokens",
                "longer rows are cut; starts anew",
                False,
            )
        )
    if config.method.name in ("lora", "full"):
        found.append(
            (
                {"method": {"name": "qlora"}},
                "QLoRA: the base model in 4 bits",
                "somewhat slower and less exact; starts anew",
                False,
            )
        )
    return found


def _bytes(config: RunConfig, plan: dict[str, Any]) -> int | None:
    folder = source.check(config.model)
    if folder is None:
        return None
    rows = plan.get("data") if isinstance(plan.get("data"), dict) else None
    try:
        return estimate(model.facts(folder), config, devices()[0], rows).total
    except (KeyError, ValueError, TypeError):  # statistics of the rows in a form that an older diary holds
        return estimate(model.facts(folder), config, devices()[0]).total
