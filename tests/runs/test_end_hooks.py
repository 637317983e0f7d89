"""A run's end told to a webhook, and a Space that rests when nothing is left to do."""

from __future__ import annotations

from collections.abc import Iterator

import huggingface_hub
import pytest

from studio import queue
from studio.run import Run
from studio.runs import backup, end_hooks
from tests.faults import stage
from tests.faults.listener import listening


@pytest.fixture
def heard() -> Iterator[tuple[str, list[dict]]]:
    """A local server and what was posted to it."""
    with listening() as told:
        yield told


@pytest.fixture(autouse=True)
def _clean(home: object) -> Iterator[None]:
    yield
    stage.clear()


def notes(run: Run) -> list[str]:
    return [event["text"] for event in run.events() if event["kind"] == "note"]


def test_the_webhook_hears_of_the_end(heard: tuple[str, list[dict]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, told = heard
    monkeypatch.setenv("STUDIO_WEBHOOK", f"{address}/hook")
    run = stage.finished_run()
    stage.until(lambda: told, "the post")
    assert told[0]["event"] == "run"
    assert (told[0]["run"]["id"], told[0]["run"]["state"], told[0]["run"]["steps"]) == (run.id, "finished", 12)
    assert not notes(run)


@pytest.mark.parametrize("path", ["/broken?key=secret", None])
def test_a_webhook_that_fails_leaves_a_note(
    heard: tuple[str, list[dict]], monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    run = stage.finished_run()
    monkeypatch.setenv("STUDIO_WEBHOOK", f"{heard[0]}{path}" if path else "file:///etc/secret")
    end_hooks.begin(run)
    end_hooks.run_pending(run)
    assert run.state() == "finished"
    assert any("webhook" in text for text in notes(run))
    assert "secret" not in run.events_file.read_text()


@pytest.fixture
def rested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Spaces that were paused."""
    paused: list[str] = []
    monkeypatch.setattr(
        huggingface_hub.HfApi, "pause_space", lambda self, name, token=None: paused.append(f"{name} {token}")
    )
    for name, value in {"SPACE_ID": "me/mine", "STUDIO_PAUSE_SPACE": "1", "HF_TOKEN": "hf_x"}.items():
        monkeypatch.setenv(name, value)
    return paused


def test_a_space_rests_when_nothing_is_left(rested: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPACE_ID", "STUDIO_PAUSE_SPACE"):
        monkeypatch.delenv(name)
    run = stage.finished_run()
    monkeypatch.setenv("STUDIO_PAUSE_SPACE", "1")
    monkeypatch.setenv("SPACE_ID", "me/mine")
    again(run)
    assert not rested, "its disk would be emptied"
    assert any("not paused" in text for text in notes(run))
    monkeypatch.setattr(backup, "has_persistent_storage", lambda: True)
    waits = queue.create(stage.order())
    again(run)
    assert not rested, "another waits"
    waits.append("end", state="stopped")
    again(run)
    end_hooks.run_pending(run)  # nothing is left to do
    assert rested == ["me/mine hf_x"]


def again(run: Run) -> None:
    stage.until(lambda: not run.alive(), "the supervisor's end")  # it says so before it lets go of the run
    end_hooks.begin(run)
    end_hooks.run_pending(run)
