"""The bar under the header, on every tab: the running job and the page's one link to what is new (live.poll)."""

from __future__ import annotations

import gradio as gr

from studio.ui import (
    aligning,
    assets,
    benchmark,
    doctor,
    evaluation,
    exports,
    influence,
    judge,
    live,
    run_details,
    shares,
)

READS = (
    live.poll,
    run_details.whole_log,
    run_details.order,
    run_details.differences,
    run_details.repairs,
    exports.taken,
    exports.download,
    shares.shares,
    doctor.examined,
    doctor.doctors_report,
    evaluation.evaluation,
    evaluation.evaluation_file,
    evaluation.leaders,
    influence.influences,
    judge.judgement,
    aligning.preferences,
    aligning.alignment,
    benchmark.benchmarks,
)


def build(page: gr.Blocks) -> None:
    """The gr.HTML that the bar is drawn in."""
    gr.HTML(html_template="<div></div>", js_on_load=assets.mount("bar"), apply_default_css=False, elem_id="studio-bar")
