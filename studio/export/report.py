"""A run's report as one HTML file that needs no network: order, data, curves, samples and figures."""

from __future__ import annotations

import html
from typing import Any

from studio import benchmark
from studio.combination import TYPES
from studio.data.problem import KINDS, shorten
from studio.events import latest, perplexity
from studio.export import evaluation, forgetting, proof, races
from studio.export.card import PROGRAMS, cells, portable, short
from studio.export.curve import curve, svg
from studio.export.evaluation import figure
from studio.export.html_table import table
from studio.program import versions
from studio.run import Run, summary
from studio.runs.combined import losses
from studio.runs.figures import figures
from studio.talk import votes

STYLE = """:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.8rem;margin:1.5rem 0}
.figures div{border:1px solid #8884;border-radius:8px;padding:.6rem 1rem;font-size:.85rem}
.figures b{display:block;font-size:1.4rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
.short{white-space:nowrap}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.3rem 1.2rem .3rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #8883}
th{font-weight:500;opacity:.7}
.samples td{white-space:pre-wrap;overflow-wrap:anywhere}
.samples td:first-child{white-space:nowrap;opacity:.7}
pre{background:#8881;padding:1rem;border-radius:8px;overflow:auto;white-space:pre-wrap}
blockquote{border-left:3px solid #8886;margin:1rem 0;padding-left:1rem;white-space:pre-wrap}
svg{width:100%;height:auto;overflow:visible}
@media(max-width:34rem){svg{font-size:24px}}
.note{color:#b35900}"""


def report(run: Run, alone: bool = False) -> str:
    """The page. Everything from data, names or a model is escaped. alone: no other run is named beside it."""
    run_summary, events, config = summary(run), run.events(), run.config
    plan = latest(events, "plan")
    if config.combine:
        results = [_combined(run)]
    elif config.race:
        results = [races.section(run)]
    else:
        results = [
            "<h2>Curves</h2>",
            svg(curve(run)),
            _data(plan, run),
            _evaluations(events),
            forgetting.section(run),
            *_evaluation(run, alone),
        ]
    parts = [
        f'<h1 translate="no">{_e(run_summary["name"])}</h1><p>{_e(config.method.label)} '
        f'· <span translate="no">{_e(config.model.source)} · {_e(run.id)}</span> '
        f"· <span>{_e(run_summary['state'])}</span></p>"
        + (f"<p><b>{_e(run_summary['cause'])}</b></p>" if run_summary["cause"] else ""),
        _figures(run_summary),
        *results,
        _samples(events) or _proof_samples(run),
        _votes(run),
        _notes(events),
        f'<h2>The order</h2><pre translate="no">{_e(portable(config.to_yaml(), config))}</pre>',
        f'<p translate="no">{_e(", ".join(f"{name} {version}" for name, version in versions(*PROGRAMS).items()))}</p>',
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<title translate="no">{_e(run_summary["name"])}</title><style translate="no">{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _e(value: Any) -> str:
    return html.escape(str(value))


def _figures(run_summary: dict[str, Any]) -> str:
    boxes = [f"<div>{name}<b>{_e(value)}</b></div>" for name, value in figures(run_summary)]
    return f'<div class="figures">{"".join(boxes)}</div>'


def _data(plan: dict[str, Any], run: Run) -> str:
    record = plan.get("data") or {}
    rows = [("rows trained on", plan.get("rows", "?")), ("rows held out", plan.get("eval_rows", "?"))]
    rows += [(short(edit["source"]), edit["text"]) for edit in run.edited()]
    changes = {name: record.get(name) for name in ("dropped", "cut")}
    changes["held out, not measured on"] = (record.get("eval") or {}).get("dropped")
    for change, kinds in changes.items():
        for kind, found in (kinds or {}).items():
            why = KINDS[kind].reason if kind in KINDS else kind
            rows.append((why, f"{change}: {found['count']} ({shorten(found['rows'])})"))
    if plan.get("new_tokens"):
        rows.append(("new tokens", ", ".join(plan["new_tokens"])))
    return f"<h2>Data</h2>{table((), rows)}"


def _evaluations(events: list[dict[str, Any]]) -> str:
    rows = [
        (event["step"], f"{event['loss']:.4f}", figure(perplexity(event), 2, 1), figure(event.get("accuracy"), 1, 100))
        for event in events
        if event["kind"] == "eval" and event.get("loss") is not None
    ]
    head = ("step", "loss", "perplexity", "token accuracy, %")
    return f"<h2>Held-out loss</h2>{table(head, rows)}" if rows else ""


def _evaluation(run: Run, alone: bool) -> list[str]:
    """What base and tuned model were measured at, and the other runs on the same data."""
    verdict, figures = evaluation.figures(run)
    tables = [(f"Evaluation</h2><p><b>{_e(verdict)}</b></p>", evaluation.HEAD, figures)]
    tables.append((f"Benchmarks</h2><p>{_e(benchmark.ABOUT)}</p>", benchmark.HEAD, benchmark.rows(run)))
    if not alone:
        tables.append(("Runs on the same data</h2>", evaluation.LEADERS_HEAD, evaluation.leaders(run)))
    return [f"<h2>{title}{table(head, rows)}" for title, head, rows in tables if rows]


def _combined(run: Run) -> str:
    """The adapters and weights of a combination, and the losses on each run's held-out rows."""
    order = run.config.combine
    rows = [cells(row, order.runs) for row in losses(run)]
    head = ("held-out rows of", "rows", "base", *order.runs, "combined")
    held_out = f"<h2>Held-out loss</h2>{table(head, rows)}" if rows else ""
    return f"<h2>Combination</h2><p>{_e(order.describe())}. {_e(TYPES[order.how])}</p>{held_out}"


def _samples(events: list[dict[str, Any]]) -> str:
    """Each question with the answers of the first and the last round and the data's own, one below the other."""
    asked: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["kind"] == "sample":
            asked.setdefault(event["prompt"], []).append(event)
    parts = []
    for prompt, answers in asked.items():
        rounds = answers[:1] + answers[-1:] if len(answers) > 1 else answers
        rows = [(f"step {event['step']}", event["answer"] + (" …" if event.get("cut") else "")) for event in rounds]
        if answers[0].get("reference"):
            rows.append(("in the data", answers[0]["reference"]))
        lines = "".join(f'<tr><td>{name}</td><td translate="no">{_e(text)}</td></tr>' for name, text in rows)
        parts.append(f'<h3 translate="no">{_e(prompt)}</h3><table class="samples">{lines}</table>')
    return f"<h2>Samples</h2>{''.join(parts)}" if parts else ""


def _proof_samples(run: Run) -> str:
    """Answers of an export's proof, for a run that wrote no samples."""
    samples = "".join(
        f'<h3 translate="no">{_e(question)}</h3><blockquote translate="no">{_e(answer)}</blockquote>'
        for question, answer in proof.answered(run)[:5]
    )
    return f"<h2>Samples</h2>{samples}" if samples else ""


def _votes(run: Run) -> str:
    tally = votes.tally(run.id)
    if not tally["votes"]:
        return ""
    return (
        f"<h2>Blind votes</h2><p>{tally['wins']} won, {tally['ties']} ties, {tally['losses']} lost: "
        f"{tally['rate']:.0%} (95 % interval {tally['low']:.0%} to {tally['high']:.0%}).</p>"
    )


def _notes(events: list[dict[str, Any]]) -> str:
    notes = "".join(
        f'<li class="note"><span>{_e(event.get("text", ""))}</span> <span>{_e(event.get("hint") or "")}</span></li>'
        for event in events
        if event["kind"] == "note" and event.get("level") != "info"
    )
    return f"<h2>Warnings</h2><ul>{notes}</ul>" if notes else ""
