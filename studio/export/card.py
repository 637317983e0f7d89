"""The model card: base, data, method, results, samples, and the order that repeats the run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from studio import benchmark, data
from studio.base.starter import REPO
from studio.combination import TYPES
from studio.errors import StudioError
from studio.export import evaluation, proof, readme
from studio.export.curve import curve, png
from studio.home import write_atomic
from studio.program import versions
from studio.run import Run, summary
from studio.runs.combined import losses
from studio.runs.figures import preferred
from studio.talk import votes

PICTURE = "curve.png"
LICENCES = {REPO: "apache-2.0"}
PROGRAMS = ("torch", "transformers", "peft", "bitsandbytes")


def write(run: Run, folder: Path) -> None:
    """Write README.md and its loss curve into a folder."""
    if not run.config.combine:
        png(curve(run), folder / PICTURE)
    write_atomic(folder / "README.md", card(run))


def card(run: Run) -> str:
    """The card as Markdown with the Hub's metadata."""
    from huggingface_hub import ModelCardData

    config = run.config
    base = readme.hub_name(config.model.source)
    licence = licence_of(base, run)
    metadata = ModelCardData(
        base_model=base,
        library_name="peft" if config.method.adapter else "transformers",
        license=licence,
        pipeline_tag="text-generation",
        tags=["fine-tuning-studio", config.method.name, *(["merge"] if config.combine else [])],
    )
    run_summary = summary(run)
    if config.combine:
        body = _combined(config, base, run)
    else:
        opening, results = _opening(config, base, run_summary), _results(run, run_summary)
        body = [opening, _data(config, run), _method(config), results, *_evaluation(run), _samples(run)]
    parts = [
        f"---\n{metadata.to_yaml()}\n---\n",
        f"# {run_summary['name']}\n",
        *body,
        f"## Use it\n\n{readme.usage(config.model.source, config.method, len(config.data.new_tokens))}",
        f"## Repeat it\n\n```yaml\n{portable(config.to_yaml(), config)}```\n",
        _made_with(licence, base),
    ]
    return "\n".join(part for part in parts if part)


def licence_of(base: str, run: Run) -> str | None:
    """The base's licence as its own model card names it, or as known of the starter; None where it is not known."""
    if base in LICENCES:
        return LICENCES[base]
    from huggingface_hub import ModelCard

    from studio.base.source import local

    folder = local(run.config.model)
    if folder is None or not (folder / "README.md").is_file():
        return None
    try:
        licence = ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data.license
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return None  # no card, or one that cannot be read
    return licence if isinstance(licence, str) else None


def portable(text: str, config: Any) -> str:
    """The order with the names of files instead of this computer's paths."""
    order = yaml.safe_load(text)
    order.get("combine", {}).pop("held_out", None)
    data_order = order["data"]
    train = data_order.get("train")
    if isinstance(train, str):
        data_order["train"] = short(train)
    else:
        data_order["train"] = [{**part, "source": short(part["source"])} for part in train]
    if isinstance(data_order.get("eval"), str):
        data_order["eval"] = short(data_order["eval"])
    if isinstance(order.get("model"), str) and order["model"] != "starter":
        order["model"] = readme.hub_name(order["model"])
    return yaml.safe_dump(order, sort_keys=False, allow_unicode=True)


def short(source: str) -> str:
    """A path's file name; any other source unchanged."""
    return Path(source).name if Path(source).is_absolute() or source.startswith((".", "~")) else source


def _link(base: str) -> str:
    return f"[{base}](https://huggingface.co/{base})" if "/" in base else base


def _opening(config: Any, base: str, summary: dict[str, Any]) -> str:
    share = ""
    if summary.get("trainable") and summary.get("parameters"):
        share = f" ({summary['trainable']:,} of {summary['parameters']:,} parameters trained)"
    stage = "" if config.stage.is_supervised else f", stage {config.stage.label}"
    start = f" It goes on from the adapter of the run `{config.start}`." if config.start else ""
    return f"{_link(base)} fine-tuned with {config.method.label}{share}{stage} by Fine-Tuning Studio.{start}\n"


def _combined(config: Any, base: str, run: Run) -> list[str]:
    """The sections of a combination: its adapters and weights, and the losses on each run's held-out rows."""
    order, table = config.combine, losses(run)
    rows = "\n".join(f"| {name} | {weight:g} |" for name, weight in zip(order.runs, order.weights, strict=True))
    density = f" Density: {order.density:g}." if order.density is not None else ""
    sections = [
        f"{_link(base)} with an adapter that Fine-Tuning Studio combined from {len(order.runs)} fine-tuned ones.\n",
        f"## Combination\n\n`{order.how}`: {TYPES[order.how]}{density}\n\n| adapter | weight |\n|---|---|\n{rows}\n",
    ]
    if not table:
        return [*sections, _data(config, run)]
    head = ["held-out rows of", "rows", "base", *order.runs, "combined"]
    lines = "\n".join("| " + " | ".join(cells(row, order.runs)) + " |" for row in table)
    held_out = f"## Held-out loss\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|\n{lines}\n"
    return [*sections, held_out, _data(config, run), _samples(run)]


def cells(row: dict[str, Any], runs: Iterable[str]) -> list[str]:
    """One row of a combination's losses: run, rows, base, each run, combined."""
    values = [row["base"], *(row["parents"].get(name) for name in runs), row["combined"]]
    return [row["run"], str(row["rows"]), *("–" if value is None else f"{value:.4f}" for value in values)]


def _data(config: Any, run: Run) -> str:
    plan = run.plan()
    lines = [
        f"- `{short(part['source'])}`: {part['rows']:,} rows, format {part['format']}, "
        f"fingerprint `{part['fingerprint']}`"
        for part in (plan.get("data") or {}).get("sources") or _sources(config)
    ]
    lines += [f"- `{short(edit['source'])}` was {edit['text']}" for edit in run.edited()]
    text = "## Data\n\n" + "\n".join(lines) + "\n"
    if plan.get("rows"):
        text += f"\nTrained on {plan['rows']:,} rows, {plan.get('eval_rows', 0):,} held out. "
        text += f"Chat template: `{config.data.template}`.\n"
    added = ", ".join(f"`{token}`" for token in config.data.new_tokens)
    return text + (f"\nNew tokens, with trained rows: {added}.\n" if added else "")


def _sources(config: Any) -> list[dict[str, Any]]:
    """The data files as they are now, for a run whose plan does not list them."""
    sources = []
    for part in config.data.sources():
        try:
            read = data.read(part.source, config.data.format, config.data.mapping, encoding=config.data.encoding)
        except StudioError:
            continue
        sources.append(
            {"source": part.source, "rows": read.rows, "format": read.format, "fingerprint": read.fingerprint}
        )
    return sources


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


def _results(run: Run, summary: dict[str, Any]) -> str:
    rows = [
        ("held-out loss before", summary.get("eval_loss_before")),
        ("held-out loss after", summary.get("eval_loss")),
        ("training loss", summary.get("train_loss")),
        *preferred(summary),
    ]
    lines = [f"| {name} | {value:.4f} |" for name, value in rows if value is not None]
    if summary.get("seconds"):
        lines.append(f"| time | {summary['seconds'] / 60:.1f} minutes, {summary.get('step') or 0} steps |")
    tally = votes.tally(run.id)
    if tally["votes"]:
        interval = f"95 % interval {tally['low']:.0%} to {tally['high']:.0%}"
        lines.append(f"| blind votes won | {tally['rate']:.0%} of {tally['votes']} ({interval}) |")
    table = "| figure | value |\n|---|---|\n" + "\n".join(lines) + "\n" if lines else ""
    return f"## Results\n\n![Loss by step]({PICTURE})\n\n{table}"


def _evaluation(run: Run) -> list[str]:
    """What base and tuned model were measured at, and the other runs on the same data."""
    verdict, figures = evaluation.figures(run)
    sections = []
    if figures:
        sections.append(f"## Evaluation\n\n{verdict}\n\n{_table(evaluation.HEAD, figures)}")
    if rows := benchmark.rows(run):
        sections.append(f"## Benchmarks\n\n{benchmark.ABOUT}\n\n{_table(benchmark.HEAD, rows)}")
    if leaders := evaluation.leaders(run):
        sections.append(f"## Runs on the same data\n\n{_table(evaluation.LEADERS_HEAD, leaders)}")
    return sections


def _table(head: Iterable[str], rows: Iterable[list[str]]) -> str:
    lines = [list(head), *([_quoted(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _samples(run: Run) -> str:
    samples = {event["prompt"]: event["answer"] for event in run.events() if event["kind"] == "sample"}
    pairs = list((samples or dict(proof.answered(run))).items())[:5]
    quotes = "\n\n".join(f"> **{_quoted(prompt)}**\n>\n> {_quoted(answer)}" for prompt, answer in pairs)
    return f"## Samples\n\n{quotes}\n" if quotes else ""


def _quoted(text: str) -> str:
    """Escape text for a Markdown quotation."""
    for sign in "\\`*_<>[]#|":
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", "\n> ")


def _made_with(licence: str | None, base: str) -> str:
    installed = ", ".join(f"{name} {version}" for name, version in versions(*PROGRAMS).items())
    terms = (
        f"The base model's licence is {licence}; it applies to this model too."
        if licence
        else f"The licence of {base} applies to this model too; look it up there."
    )
    return f"## Licence and versions\n\n{terms}\n\n{installed}\n"
