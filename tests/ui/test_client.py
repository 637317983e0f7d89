"""The README's example of gradio_client, as it stands in example_client.py, on a page with a login-free address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.run import runs
from tests.ui.served import Page

EXAMPLE = Path(__file__).parent / "example_client.py"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_example_runs(page: Page, tiny_model: Path, tiny_data: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), page.address, str(tiny_data), str(tiny_model)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"},
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert "'rows': 40" in done.stdout
    assert " GiB, about " in done.stdout
    assert "finished" in done.stdout
    assert [run.state() for run in runs()] == ["finished"]


def test_stop_by_name(page: Page, order_yaml: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradio_client import Client

    monkeypatch.setattr("studio.queue.advance", lambda *a, **k: None)
    client = Client(page.address, verbose=False)
    run = client.predict(order_yaml, api_name="/start")["run"]
    assert client.predict(run, False, api_name="/stop") == {"run": run, "state": "stopped"}


JOBS = {
    "import",
    "inspect",
    "estimate",
    "start",
    "status",
    "stop",
    "chat",
    "time_device",  # the README's
    "resume",
    "pause",
    "ask",
    "extend",
    "repair_run",
    "label",
    "move",
    "delete",
    "delete_upload",
    "finish",
    "take_away",
    "combine",
    "evaluate",
    "stop_evaluation",
    "find_influence",
    "stop_influence",
    "train_without",
    "align",
    "score_answers",
    "judge_answers",
    "start_benchmark",
    "stop_benchmark",
    "stop_judging",
    "start_race",
    "start_plan",
    "share_run",
    "end_shares",
    "keep_setting",  # a run's page
    "try_rewards",  # the Tune tab
    "data_edit",
    "data_save",
    "rated_pairs",
    "paste_rows",
    "read_document",
    "make_rows",
    "stop_making",
    "take_rows",  # the Data tab
    "examine",  # the list of runs
    "chat_ask",
    "chat_stop",
    "chat_vote",
    "chat_delete",
    "chat_load",
    "chat_unload",
    "chat_keep",
    "chat_pairs",
}  # the Chat tab


def test_only_what_is_meant_can_be_called(page: Page) -> None:
    """A handler without a name would be offered under its function's, or by number."""
    from gradio_client import Client

    told = Client(page.address, verbose=False).view_api(return_format="dict")
    assert {name.lstrip("/") for name in told["named_endpoints"]} == JOBS
    assert not told["unnamed_endpoints"]
    for name, about in told["named_endpoints"].items():
        for parameter in about["parameters"]:
            assert parameter["parameter_name"], name


@pytest.mark.parametrize("name", ["inspect", "estimate", "start", "status", "stop", "chat"])
def test_every_job_refuses_in_words(page: Page, name: str) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    values = {"stop": ("nowhere", False), "inspect": ("nowhere.json", "auto"), "chat": ("nowhere", "Hello?")}.get(
        name, ("nowhere",)
    )
    with pytest.raises(AppError) as refused:
        Client(page.address, verbose=False).predict(*values, api_name=f"/{name}")
    assert "nowhere" in str(refused.value) or "order" in str(refused.value)
