"""A run's report: one HTML file that needs no network. The order, what became of the data, the curves, samples and numbers."""

from __future__ import annotations

import html
from typing import Any

from studio.combination import TYPES
from studio.events import latest
from studio.export import proof
from studio.export.card import cells, portable, short, versions
from studio.export.curve import curve, svg
from studio.run import Run, summary
from studio.runs.combined import losses
from studio.talk import votes

STYLE = """:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}.figures{display:flex;flex-wrap:wrap;gap:1rem;margin:1.5rem 0}.figures div{border:1px solid #8884;border-radius:8px;padding:.6rem 1rem}
.figures b{display:block;font-size:1.4rem;font-variant-numeric:tabular-nums}table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;
vertical-align:top}pre{background:#8881;padding:1rem;border-radius:8px;overflow:auto;white-space:pre-wrap}blockquote{border-left:3px solid #8886;margin:1rem 0;
padding-left:1rem;white-space:pre-wrap}svg{width:100%;height:auto}.note{color:#b35900}"""


def report(run: Run) -> str:
    """The whole page as a string; everything that came from data, names or a model is escaped."""
    said, diary = summary(run), run.events()
    config = run.config
    plan = latest(diary, "plan")
    parts = [
        f"<h1>{_e(said['name'])}</h1><p>{_e(config.method.label)} on {_e(config.model.source)}, run {_e(run.id)}: {_e(said['state'])}."
        f"{' ' + _e(said['cause']) if said['cause'] else ''}</p>",
        _figures(said),
        *(
            [_combined(run)]
            if config.combine
            else ["<h2>Curves</h2>", svg(curve(run)), _data(plan, run), _evaluations(diary)]
        ),
        _samples(diary) or _answered(run),
        _votes(run),
        _notes(diary),
        f"<h2>The order</h2><pre>{_e(portable(config.to_yaml(), config))}</pre>",
        "<p>" + _e(", ".join(f"{name} {version}" for name, version in versions().items())) + "</p>",
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_e(said['name'])}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _e(value: Any) -> str:
    return html.escape(str(value))


def _figures(said: dict[str, Any]) -> str:
    def gigabytes(value: float | None) -> str | None:
        return f"{value / 1e9:.2f} GB" if value else None

    shown = [
        ("held-out loss before", said["eval_loss_before"]),
        ("held-out loss after", said["eval_loss"]),
        ("training loss", said["train_loss"]),
        ("steps", f"{said['step']} of {said['steps']}" if said["steps"] else said["step"]),
        ("minutes", f"{said['seconds'] / 60:.1f}"),
        ("tokens a second", said["tokens_per_second"]),
        ("peak memory", gigabytes(said["peak_memory"])),
        ("estimated memory", gigabytes(said["estimated_memory"])),
        ("trained parameters", f"{said['trainable']:,}" if said["trainable"] else None),
    ]
    return (
        '<div class="figures">'
        + "".join(
            f"<div>{name}<b>{_e(f'{value:.4f}' if isinstance(value, float) and value < 100 else value)}</b></div>"
            for name, value in shown
            if value is not None
        )
        + "</div>"
    )


def _data(plan: dict[str, Any], run: Run) -> str:
    record = plan.get("data") or {}
    lines = [
        f"<tr><td>rows trained on</td><td>{plan.get('rows', '?')}</td></tr><tr><td>rows held out</td><td>{plan.get('eval_rows', '?')}</td></tr>"
    ]
    lines += [f"<tr><td>{_e(short(one['source']))}</td><td>{_e(one['text'])}</td></tr>" for one in run.edited()]
    for what in ("dropped", "cut"):
        for kind, rows in (record.get(what) or {}).items():
            count = len(rows) if isinstance(rows, list) else rows
            which = (
                f": rows {', '.join(map(str, rows[:20]))}{'…' if len(rows) > 20 else ''}"
                if isinstance(rows, list)
                else ""
            )
            lines.append(f"<tr><td>{_e(what)}, {_e(kind)}</td><td>{_e(count)}{_e(which)}</td></tr>")
    if added := plan.get("new_tokens"):
        lines.append(f"<tr><td>new tokens</td><td>{_e(', '.join(added))}</td></tr>")
    return f"<h2>Data</h2><table>{''.join(lines)}</table>"


def _evaluations(diary: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{event['step']}</td><td>{event['loss']:.4f}</td></tr>"
        for event in diary
        if event["kind"] == "eval" and event.get("loss") is not None
    )
    return f"<h2>Held-out loss</h2><table><tr><th>step</th><th>loss</th></tr>{rows}</table>" if rows else ""


def _combined(run: Run) -> str:
    """What a combination was made of, and the losses on each run's held-out rows."""
    order, table = run.config.combine, losses(run)
    head = "".join(f"<th>{_e(name)}</th>" for name in ("held-out rows of", "rows", "base", *order.runs, "combined"))
    rows = "".join(
        "<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in cells(row, order.runs)) + "</tr>" for row in table
    )
    held = f"<h2>Held-out loss</h2><table><tr>{head}</tr>{rows}</table>" if table else ""
    return f"<h2>Combination</h2><p>{_e(order.told())}. {_e(TYPES[order.how])}</p>{held}"


def _samples(diary: list[dict[str, Any]]) -> str:
    told = "".join(
        f"<p>step {event['step']}: <b>{_e(event['prompt'])}</b></p><blockquote>{_e(event['answer'])}</blockquote>"
        for event in diary
        if event["kind"] == "sample"
    )
    return f"<h2>Samples</h2>{told}" if told else ""


def _answered(run: Run) -> str:
    """What an export's proof asked, where the run itself wrote no samples."""
    told = "".join(
        f"<p><b>{_e(question)}</b></p><blockquote>{_e(answer)}</blockquote>"
        for question, answer in proof.answered(run)[:5]
    )
    return f"<h2>Samples</h2>{told}" if told else ""


def _votes(run: Run) -> str:
    counted = votes.tally(run.id)
    if not counted["votes"]:
        return ""
    return (
        f"<h2>Blind votes</h2><p>{counted['wins']} won, {counted['ties']} ties, {counted['losses']} lost: {counted['rate']:.0%} "
        f"(95 % interval {counted['low']:.0%} to {counted['high']:.0%}).</p>"
    )


def _notes(diary: list[dict[str, Any]]) -> str:
    told = "".join(
        f'<li class="note">{_e(event.get("text", ""))} {_e(event.get("hint") or "")}</li>'
        for event in diary
        if event["kind"] == "note" and event.get("level") != "info"
    )
    return f"<h2>Warnings</h2><ul>{told}</ul>" if told else ""
