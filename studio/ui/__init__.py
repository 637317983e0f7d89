"""The page: a header, and four tabs that are one file each. Never torch, never studio.worker.

A tab's module offers `build(page)`, called inside the tab's column. A tab is a gr.HTML whose script (static/NAME.js, a function
studio.parts.NAME) draws it and asks read-only server functions; what changes something is a named job in jobs.py, called by the
page's script (studio.call) and by gradio_client alike. All four columns are in the page from the start and CSS shows the open one,
so a part that measures itself listens to the "studio:tab" event. There is no gr.State and no generator held open by a page.
"""

from __future__ import annotations

import importlib

import gradio as gr

from studio.ui import assets, bar, jobs, space

TABS = ("data", "tune", "runs", "chat")
TITLE = "Fine-Tuning Studio"


def build() -> gr.Blocks:
    """The whole page."""
    here = space.space()
    signing = (
        _sign_in() if here and here.login else None
    )  # elsewhere gradio would log in with this machine's own account
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False) as page:
        gr.HTML(
            html_template=assets.read("header.html"),
            js_on_load=assets.mount("header"),
            apply_default_css=False,
            elem_id="studio-header",
        )
        if signing:
            signing.render()
        bar.build(page)
        for name in TABS:
            with gr.Column(elem_id=f"tab-{name}", elem_classes="studio-tab"):
                importlib.import_module(f"studio.ui.{name}").build(page)
        jobs.build()
    return page


def _sign_in() -> gr.LoginButton:
    """Gradio's login as a plain link, made outside a page: inside one it asks at every load who one is, which the guard refuses to visitors."""
    return gr.LoginButton(
        elem_id="studio-login",
        icon=None,
        size="sm",
        link="/login/huggingface?_target_url=/",
        link_target="_self",
        render=False,
    )
