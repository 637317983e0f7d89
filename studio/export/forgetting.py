"""What a run has forgotten, for its report: verdict, figures by kind, and gain against forgetting as a picture."""

from __future__ import annotations

import html
from typing import Any

from studio import general
from studio.export.evaluation import figure
from studio.export.html_table import table
from studio.general.verdict import sentence
from studio.run import Run
from studio.runs.state import current_events

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 800, 300, 56, 24, 40
COLOUR = "#4477aa"


def section(run: Run) -> str:
    """The part of the report; "" where forgetting was not measured."""
    events = current_events(run.events())
    measured = general.last([event for event in events if event["kind"] == "forgetting"])
    if measured is None:
        return ""
    points = general.curve(events)
    kinds = [(name, f"{one['loss_rise']:.4f}", f"{one['kl']:.4f}") for name, one in (measured["kinds"] or {}).items()]
    advice = "".join(f"<li>{html.escape(text)}</li>" for text in measured["advice"])
    return (
        f"<h2>Forgetting</h2><p><b>{sentence(measured)}</b> On {measured['items']} general questions the loss "
        f"changed by {measured['loss_rise']:+.4f} per token (95 % interval {measured['low']:+.4f} to "
        f"{measured['high']:+.4f}), and the answers moved by {measured['kl']:.4f} (KL to the base).</p>"
        + (f'<div class="scroll">{svg(points)}</div>{_points(points)}' if len(points) > 1 else "")
        + table(("kind", "loss rise", "KL"), kinds)
        + (f"<ul>{advice}</ul>" if advice else "")
    )


def _points(points: list[dict[str, Any]]) -> str:
    rows = [
        (point["step"], figure(point["gain"], 4, 1), f"{point['kl']:.4f}", "yes" if point["front"] else "")
        for point in points
    ]
    return table(("step", "gain", "KL", "on the frontier"), rows)


def svg(points: list[dict[str, Any]]) -> str:
    """Gain (fall of the held-out loss) against forgetting (KL), the frontier filled and joined."""
    points = [point for point in points if point["gain"] is not None]
    if len(points) < 2:
        return ""
    gains, moved = [point["gain"] for point in points], [point["kl"] for point in points]
    low, high, last = min(0.0, *gains), max(gains) or 1.0, max(*moved, 1e-3)

    def place(point: dict[str, Any]) -> tuple[float, float]:
        x = LEFT + max(0.0, point["kl"]) / last * (WIDTH - LEFT - 24)
        return x, TOP + (high - point["gain"]) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)

    front = sorted((place(point) for point in points if point["front"]), key=lambda pair: pair[0])
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" stroke="{COLOUR}" fill="{COLOUR if point["front"] else "none"}">'
        f"<title>step {point['step']}</title></circle>"
        for point, (x, y) in ((point, place(point)) for point in points)
    )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in front)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Gain against forgetting" '
        'font-family="sans-serif" font-size="12">'
        f'<line x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#8886"/>'
        f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" stroke="#8886"/>'
        f'<text x="{LEFT - 6}" y="{TOP + 4}" text-anchor="end" fill="currentColor">{high:.2f}</text>'
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end" fill="currentColor">{low:.2f}</text>'
        f'<text x="{LEFT}" y="14" fill="currentColor">gain (fall of the held-out loss)</text>'
        f'<text x="{WIDTH - 24}" y="{HEIGHT - 20}" text-anchor="end" fill="currentColor">{last:.3f}</text>'
        f'<text x="{WIDTH - 24}" y="{HEIGHT - 4}" text-anchor="end" fill="currentColor">forgetting (KL)</text>'
        f'<polyline points="{line}" fill="none" stroke="{COLOUR}" stroke-width="2"/>{dots}</svg>'
    )
