"""Colours and type for gradio's own parts, in line with static/studio.css. No font is fetched."""

from __future__ import annotations

import gradio as gr

SANS = [
    "ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
    "sans-serif"
]  # fmt: skip
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Noto Sans Mono CJK SC", "monospace"]


def theme() -> gr.themes.Base:
    """Gradio's plainest theme in the studio's colours."""
    return gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=SANS, font_mono=MONO).set(
        body_background_fill="var(--ground)",
        body_background_fill_dark="var(--ground)",
        body_text_color="var(--ink)",
        body_text_color_dark="var(--ink)",
        block_background_fill="var(--card)",
        block_background_fill_dark="var(--card)",
        block_border_color="var(--line)",
        block_border_color_dark="var(--line)",
        block_radius="12px",
        button_large_radius="10px",
    )
