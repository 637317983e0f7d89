"""The page: a header, and four tabs that are one file each. Never torch, never studio.worker.

A tab's module offers `build(page)`, called inside the tab's column. A tab is a gr.HTML whose script (static/NAME.js, a
function studio.parts.NAME) draws it and asks read-only server functions. What changes something is a named job, called
by the page's script (studio.call) and by gradio_client alike. All four columns are in the page from the start and CSS
shows the open one: a part that measures itself listens to the "studio:tab" event. No gr.State and no generator is used.
"""

from __future__ import annotations

import importlib

from studio import quick_imports  # noqa: F401 - before gradio

# isort: split
import gradio as gr

from studio.ui import assets, bar, jobs, space

TABS = ("data", "tune", "runs", "chat")
TITLE = "Fine-Tuning Studio"


def build() -> gr.Blocks:
    """The whole page."""
    hosting = space.space()
    # elsewhere gradio would log in with this machine's own account
    login_button = _login_button() if hosting and hosting.login else None
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False) as page:
        gr.HTML(
            html_template=assets.read("header.html"),
            js_on_load=assets.mount("header"),
            apply_default_css=False,
            elem_id="studio-header",
        )
        if login_button:
            login_button.render()
        bar.build(page)
        for name in TABS:
            with gr.Column(elem_id=f"tab-{name}", elem_classes="studio-tab"):
                importlib.import_module(f"studio.ui.{name}").build(page)
        jobs.build()
    return page


def _login_button() -> gr.LoginButton:
    """Gradio's login button as a plain link, made outside of a page, where it does not ask who is logged in."""
    return gr.LoginButton(
        elem_id="studio-login",
        icon=None,
        size="sm",
        link="/login/huggingface?_target_url=/",
        link_target="_self",
        render=False,
    )
