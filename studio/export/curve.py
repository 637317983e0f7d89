"""A run's loss curve as a picture: SVG for the report, PNG for the model card. No browser and no plotting library."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from studio.run import Run
from studio.runs.state import current_events

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 800, 320, 56, 16, 36
TRAIN, HELD_OUT = "#4477aa", "#cc6622"  # distinct for the colour-blind too
Points = list[tuple[float, float]]


class Curve(NamedTuple):
    """Points (step, loss) of the training rows and of the held-out rows."""

    train: Points
    held_out: Points

    def lines(self) -> tuple[tuple[Points, str, str, int], ...]:
        """(points, colour, legend, x of the legend) of each line."""
        return (self.train, TRAIN, "training", 300), (self.held_out, HELD_OUT, "held out", 420)


def curve(run: Run) -> Curve:
    """The losses of a run, without those that a resume superseded."""
    events = current_events(run.events())
    points = {
        kind: [
            (event["step"], event["loss"])
            for event in events
            if event["kind"] == kind and event.get("loss") is not None
        ]
        for kind in ("step", "eval")
    }
    return Curve(points["step"], points["eval"])


def _frame(losses_by_step: Curve) -> tuple[float, float, float]:
    """Last step, lowest and highest loss shown (a margin of a twentieth)."""
    points = [*losses_by_step.train, *losses_by_step.held_out]
    losses = [loss for _, loss in points] or [0.0, 1.0]
    low, high = min(losses), max(losses)
    margin = (high - low) * 0.05 or 0.5
    return max((step for step, _ in points), default=1) or 1, low - margin, high + margin


def _to_pixels(points: Points, frame: tuple[float, float, float]) -> Points:
    last, low, high = frame
    return [
        (LEFT + step / last * (WIDTH - LEFT - 12), TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM))
        for step, loss in points
    ]


def _grid(frame: tuple[float, float, float]) -> list[tuple[float, str]]:
    """Five horizontal lines: (y, label)."""
    _, low, high = frame
    return [(TOP + n / 4 * (HEIGHT - TOP - BOTTOM), f"{high - n / 4 * (high - low):.2f}") for n in range(5)]


def svg(losses_by_step: Curve) -> str:
    """The curve as an <svg> element."""
    frame = _frame(losses_by_step)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss by step" '
        'font-family="sans-serif" font-size="12">'
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
    for points, colour, name, x in losses_by_step.lines():
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in _to_pixels(points, frame))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<rect x="{x}" y="{HEIGHT - 20}" width="12" height="4" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{HEIGHT - 12}" fill="currentColor">{name}</text>'
        )
    return "".join(parts) + "</svg>"


def png(losses_by_step: Curve, file: Path) -> None:
    """Write the same picture as a PNG file, for pages that show no SVG."""
    from PIL import Image, ImageDraw

    frame = _frame(losses_by_step)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for y, label in _grid(frame):
        draw.line([(LEFT, y), (WIDTH - 12, y)], fill="#dddddd")
        draw.text((8, y - 6), label, fill="#444444")
    draw.text((LEFT, HEIGHT - 22), "step 0", fill="#444444")
    draw.text((WIDTH - 90, HEIGHT - 22), f"step {frame[0]:.0f}", fill="#444444")
    for points, colour, name, x in losses_by_step.lines():
        if len(points) > 1:
            draw.line(_to_pixels(points, frame), fill=colour, width=2)
        draw.rectangle([x, HEIGHT - 18, x + 12, HEIGHT - 14], fill=colour)
        draw.text((x + 18, HEIGHT - 22), name, fill="#444444")
    image.save(file, "PNG")
