"""The page: a header, and four tabs that are one file each. Never torch, never studio.worker.

A tab is a gr.HTML whose script (static/NAME.js, a function studio.parts.NAME) draws it and asks the reading functions
of its modules (questions.py). What changes something is a named job, called by the page's script (studio.call) and by
gradio_client alike: each that a module of JOBS declares (rights.py). All four columns are in the page from the start,
and CSS shows the open one: a part that measures itself listens to the "studio:tab" event. No gr.State and no generator
is used.
"""

from __future__ import annotations

from studio import quick_imports  # noqa: F401 - before gradio

# isort: split
import gradio as gr

from studio.ui import (
    aligning,
    assets,
    benchmark,
    chat,
    data,
    data_edit,
    doctor,
    evaluation,
    exports,
    influence,
    jobs,
    judge,
    making,
    races,
    rights,
    runs,
    shares,
    space,
    tune,
)

TABS = {"data": "data", "tune": "tune", "runs": "studio-runs", "chat": "studio-chat"}  # and the ids of their elements
JOBS = (
    data, data_edit, making, tune, chat, runs, exports, shares, doctor, evaluation, races, influence, aligning, judge,
    benchmark
)  # fmt: skip
TITLE = "Fine-Tuning Studio"


def build() -> gr.Blocks:
    """The whole page."""
    hosting = space.space()
    # elsewhere gradio would log in with this machine's own account
    login_button = _login_button() if hosting and hosting.login else None
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False) as page:
        assets.part("header", "studio-header")
        if login_button:
            login_button.render()
        assets.part("bar", "studio-bar")
        for name, elem_id in TABS.items():
            with gr.Column(elem_id=f"tab-{name}", elem_classes="studio-tab"):
                assets.part(name, elem_id)
        for job in rights.declared_in(*JOBS, reads=False):
            rights.register(job)
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
