"""The model card: what a result was made from, how, and how well it does, with the order that repeats it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from studio import data, yaml_text
from studio.base.starter import REPO
from studio.combination import TYPES
from studio.errors import OrderError, StudioError
from studio.events import latest
from studio.export import proof, readme
from studio.export.curve import curve, png
from studio.home import write_atomic
from studio.run import Run, summary
from studio.runs.combined import losses
from studio.talk import votes

PICTURE = "curve.png"
LICENCES = {REPO: "apache-2.0"}
PROGRAMS = ("torch", "transformers", "peft", "bitsandbytes")


def write(run: Run, folder: Path) -> None:
    """README.md and its picture into a folder that holds, or will hold, the run's result."""
    if not run.config.combine:
        png(curve(run), folder / PICTURE)
    write_atomic(folder / "README.md", card(run))


def card(run: Run) -> str:
    """The card as Markdown with the Hub's YAML head."""
    config, said = run.config, summary(run)
    base = readme.hub_name(config.model.source)
    head = {
        "base_model": base,
        "library_name": "peft" if config.method.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["fine-tuning-studio", config.method.name, *(["merge"] if config.combine else [])],
    }
    licence = licence_of(base, run)
    if licence:
        head["license"] = licence
    body = (
        _combined(config, base, run)
        if config.combine
        else [_opening(config, base, said), _data(config, run), _method(config), _results(run, said), _samples(run)]
    )
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {said['name']}\n",
        *body,
        f"## Repeat it\n\n```yaml\n{portable(config.to_yaml(), config)}```\n",
        _made_with(licence, base),
    ]
    return "\n".join(part for part in parts if part)


def licence_of(base: str, run: Run) -> str | None:
    """The base's licence as its own card names it (Hub), else what is known of the starter; None: not known."""
    if base in LICENCES:
        return LICENCES[base]
    from studio.base.source import local

    folder = local(run.config.model)
    file = folder / "README.md" if folder else None
    if file and file.is_file() and (text := file.read_text(errors="replace")).startswith("---"):
        try:
            found = (yaml_text.read(text.split("---")[1], file.name) or {}).get("license")
        except OrderError:
            return None
        return found if isinstance(found, str) else None
    return None


def portable(text: str, config: Any) -> str:
    """The order without folders of this computer: only names of files are left."""
    plain = yaml.safe_load(text)
    plain.get("combine", {}).pop("held_out", None)
    train = plain["data"].get("train")
    plain["data"]["train"] = (
        short(train) if isinstance(train, str) else [{**one, "source": short(one["source"])} for one in train]
    )
    if isinstance(plain["data"].get("eval"), str):
        plain["data"]["eval"] = short(plain["data"]["eval"])
    if isinstance(plain.get("model"), str) and plain["model"] != "starter":
        plain["model"] = readme.hub_name(plain["model"])
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def short(source: str) -> str:
    """A file's name for a path; anything else as it is."""
    return Path(source).name if Path(source).is_absolute() or source.startswith((".", "~")) else source


def _opening(config: Any, base: str, said: dict[str, Any]) -> str:
    share = (
        f" ({said['trainable']:,} of {said['parameters']:,} parameters trained)"
        if said.get("trainable") and said.get("parameters")
        else ""
    )
    return (
        f"[{base}](https://huggingface.co/{base}) fine-tuned with {config.method.label}{share} by Fine-Tuning Studio.\n"
        if "/" in base
        else f"{base} fine-tuned with {config.method.label}{share} by Fine-Tuning Studio.\n"
    )


def _combined(config: Any, base: str, run: Run) -> list[str]:
    """The sections of a combination: what it was made of, how, and the losses on each run's held-out rows."""
    order, table = config.combine, losses(run)
    link = f"[{base}](https://huggingface.co/{base})" if "/" in base else base
    rows = "\n".join(f"| {name} | {weight:g} |" for name, weight in zip(order.runs, order.weights, strict=True))
    density = f" Density: {order.density:g}." if order.density is not None else ""
    made = (
        f"{link} with an adapter that Fine-Tuning Studio combined from {len(order.runs)} fine-tuned ones.\n",
        f"## Combination\n\n`{order.how}`: {TYPES[order.how]}{density}\n\n| adapter | weight |\n|---|---|\n{rows}\n",
    )
    if not table:
        return [*made, _data(config, run)]
    head = ["held-out rows of", "rows", "base", *order.runs, "combined"]
    lines = "\n".join("| " + " | ".join(cells(row, order.runs)) + " |" for row in table)
    losses_of = f"## Held-out loss\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|\n{lines}\n"
    return [*made, losses_of, _data(config, run), _samples(run)]


def cells(row: dict[str, Any], runs: Iterable[str]) -> list[str]:
    """One line of a combination's losses, in the order: whose rows, how many, base, each run, combined."""
    values = [row["base"], *(row["parents"].get(name) for name in runs), row["combined"]]
    return [row["run"], str(row["rows"]), *("–" if value is None else f"{value:.4f}" for value in values)]


def _data(config: Any, run: Run) -> str:
    plan = latest(run.events(), "plan")
    lines = [
        f"- `{short(one['source'])}`: {one['rows']:,} rows, format {one['format']}, fingerprint `{one['fingerprint']}`"
        for one in (plan.get("data") or {}).get("sources") or _sources(config)
    ]
    lines += [f"- `{short(one['source'])}` was {one['text']}" for one in run.edited()]
    used = (
        f"\nTrained on {plan['rows']:,} rows, {plan.get('eval_rows', 0):,} held out. Chat template: `{config.data.template}`.\n"
        if plan.get("rows")
        else ""
    )
    added = ", ".join(f"`{text}`" for text in config.data.new_tokens)
    used += f"\nNew tokens, with trained rows: {added}.\n" if added else ""
    return "## Data\n\n" + "\n".join(lines) + "\n" + used


def _sources(config: Any) -> list[dict[str, Any]]:
    """The data as it lies there now, for a run that has not told what it read."""
    found = []
    for one in config.data.sources():
        try:
            read = data.read(one.source, config.data.format, config.data.mapping, encoding=config.data.encoding)
            found.append(
                {"source": one.source, "rows": read.rows, "format": read.format, "fingerprint": read.fingerprint}
            )
        except StudioError:
            continue
    return found


def _method(config: Any) -> str:
    knobs = {
        **config.method.model_dump(mode="json"),
        "learning_rate": config.learning_rate,
        "epochs": config.training.epochs,
        "batch_size": config.training.batch_size,
        "accumulation": config.training.accumulation,
        "seed": config.training.seed,
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in knobs.items() if value not in (None, [], ()))
    return f"## Method\n\n{config.method.about}\n\n| setting | value |\n|---|---|\n{rows}\n"


def _results(run: Run, said: dict[str, Any]) -> str:
    rows = [
        ("held-out loss before", said.get("eval_loss_before")),
        ("held-out loss after", said.get("eval_loss")),
        ("training loss", said.get("train_loss")),
    ]
    lines = [f"| {name} | {value:.4f} |" for name, value in rows if value is not None]
    if said.get("seconds"):
        lines.append(f"| time | {said['seconds'] / 60:.1f} minutes, {said.get('step') or 0} steps |")
    counted = votes.tally(run.id)
    if counted["votes"]:
        lines.append(
            f"| blind votes won | {counted['rate']:.0%} of {counted['votes']} (95 % interval {counted['low']:.0%} to {counted['high']:.0%}) |"
        )
    table = "| figure | value |\n|---|---|\n" + "\n".join(lines) + "\n" if lines else ""
    return f"## Results\n\n![Loss by step]({PICTURE})\n\n{table}"


def _samples(run: Run) -> str:
    last = {event["prompt"]: event["answer"] for event in run.events() if event["kind"] == "sample"} or dict(
        proof.answered(run)
    )
    told = "\n\n".join(f"> **{_quoted(prompt)}**\n>\n> {_quoted(answer)}" for prompt, answer in list(last.items())[:5])
    return f"## Samples\n\n{told}\n" if told else ""


def _quoted(text: str) -> str:
    """Inside a Markdown quotation, no markup of its own."""
    for mark in "\\`*_<>[]#|":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", "\n> ")


def versions() -> dict[str, str]:
    """What this computer has installed of what trains."""
    found = {}
    for name in PROGRAMS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _made_with(licence: str | None, base: str) -> str:
    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    terms = (
        f"The base model's licence is {licence}; it applies to this model too."
        if licence
        else f"The licence of {base} applies to this model too; look it up there."
    )
    return f"## Licence and versions\n\n{terms}\n\n{told}\n"
