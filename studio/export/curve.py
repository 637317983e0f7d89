"""A run's loss curve as a picture: SVG for the report, PNG for the model card. No browser and no plotting library."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

from studio.run import Run
from studio.runs.summary import current_events

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 800, 320, 56, 16, 36
TRAIN, HELD = "#4477aa", "#cc6622"  # told apart by the colour-blind too


class Curve(NamedTuple):
    """Points (step, loss); those without a number are left out."""

    train: list[tuple[float, float]]
    held: list[tuple[float, float]]


def curve(run: Run) -> Curve:
    """The losses of a run, without what a resume has superseded."""
    diary = current_events(run.events())
    points = {
        kind: [
            (event["step"], event["loss"]) for event in diary if event["kind"] == kind and event.get("loss") is not None
        ]
        for kind in ("step", "eval")
    }
    return Curve(points["step"], points["eval"])


def _frame(found: Curve) -> tuple[float, float, float]:
    """Last step, lowest and highest loss shown (a margin of a twentieth)."""
    losses = [loss for _, loss in [*found.train, *found.held]] or [0.0, 1.0]
    low, high = min(losses), max(losses)
    margin = (high - low) * 0.05 or 0.5
    return max([step for step, _ in [*found.train, *found.held]] or [1]) or 1, low - margin, high + margin


def _placed(points: list[tuple[float, float]], frame: tuple[float, float, float]) -> list[tuple[float, float]]:
    last, low, high = frame
    return [
        (LEFT + step / last * (WIDTH - LEFT - 12), TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM))
        for step, loss in points
    ]


def _grid(frame: tuple[float, float, float]) -> list[tuple[float, str]]:
    """Five horizontal lines: (y, label)."""
    _, low, high = frame
    return [(TOP + n / 4 * (HEIGHT - TOP - BOTTOM), f"{high - n / 4 * (high - low):.2f}") for n in range(5)]


def svg(found: Curve) -> str:
    """The curve as an <svg> element."""
    frame = _frame(found)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss by step" font-family="sans-serif" font-size="12">'
    ]
    for y, label in _grid(frame):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8886"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="currentColor">{label}</text>'
        )
    parts.append(
        f'<text x="{LEFT}" y="{HEIGHT - 12}" fill="currentColor">step 0</text>'
        f'<text x="{WIDTH - 12}" y="{HEIGHT - 12}" text-anchor="end" fill="currentColor">step {frame[0]:.0f}</text>'
    )
    for points, colour, name, x in ((found.train, TRAIN, "training", 300), (found.held, HELD, "held out", 420)):
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in _placed(points, frame))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<rect x="{x}" y="{HEIGHT - 20}" width="12" height="4" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{HEIGHT - 12}" fill="currentColor">{name}</text>'
        )
    return "".join(parts) + "</svg>"


def png(found: Curve, file: Path) -> None:
    """The same picture as a PNG file, for pages that show no SVG."""
    from PIL import Image, ImageDraw

    frame = _frame(found)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for y, label in _grid(frame):
        draw.line([(LEFT, y), (WIDTH - 12, y)], fill="#dddddd")
        draw.text((8, y - 6), label, fill="#444444")
    draw.text((LEFT, HEIGHT - 22), "step 0", fill="#444444")
    draw.text((WIDTH - 90, HEIGHT - 22), f"step {frame[0]:.0f}", fill="#444444")
    for points, colour, name, x in ((found.train, TRAIN, "training", 300), (found.held, HELD, "held out", 420)):
        placed = _placed(points, frame)
        if len(placed) > 1:
            draw.line(placed, fill=colour, width=2)
        draw.rectangle([x, HEIGHT - 18, x + 12, HEIGHT - 14], fill=colour)
        draw.text((x + 18, HEIGHT - 22), name, fill="#444444")
    held = io.BytesIO()
    image.save(held, "PNG")
    file.write_bytes(held.getvalue())
