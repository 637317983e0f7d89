"""A service elsewhere that does not answer holds nobody: one flight for each thing asked, a short wait, and a
sentence.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from studio import config
from studio.errors import ModelError
from studio.ui import measure, singleflight
from studio.ui.singleflight import SingleFlight, Unanswered
from studio.ui.tune_summary import summary
from tests.bench.together import dead_hub


def test_many_who_ask_the_same_share_one_flight() -> None:
    asked, go = [], threading.Event()

    def work() -> str:
        asked.append(1)
        go.wait(10)
        return "answer"

    those = SingleFlight()
    with pytest.raises(Unanswered, match=r"The Hub does not answer"):
        those.ask("model", work, "The Hub", wait=0.05)
    with ThreadPoolExecutor(20) as pool:
        found = [pool.submit(those.ask, "model", work, "The Hub", 20.0) for _ in range(20)]
        go.set()
        assert [one.result() for one in found] == ["answer"] * 20
    assert asked == [1]


def test_who_asks_late_does_not_wait_anew() -> None:
    those, go = SingleFlight(), threading.Event()
    began = time.monotonic()
    with pytest.raises(Unanswered):
        those.ask("model", lambda: go.wait(60), "The Hub", wait=1)
    for _ in range(20):
        with pytest.raises(Unanswered):
            those.ask("model", lambda: None, "The Hub", wait=1)
    assert time.monotonic() - began < 15  # twenty that each waited anew would take as many seconds
    go.set()


def test_an_error_is_told_and_asked_anew_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    those, asked = SingleFlight(), []

    def work() -> None:
        asked.append(1)
        raise ModelError("No such model.")

    for _ in range(2):
        with pytest.raises(ModelError, match="No such"):
            those.ask("model", work, "The Hub")
    assert asked == [1]
    monkeypatch.setattr(singleflight, "AGAIN", -1.0)
    with pytest.raises(ModelError):
        those.ask("model", work, "The Hub")
    assert asked == [1, 1]


def test_only_so_many_wait() -> None:
    those, go = SingleFlight(), threading.Event()
    for number in range(singleflight.MOST):
        with pytest.raises(Unanswered):
            those.ask(number, lambda: go.wait(10), "The Hub", wait=0)
    with pytest.raises(Unanswered, match="wait for it already"):
        those.ask("one more", lambda: 1, "The Hub")
    go.set()


def test_the_summary_says_which_service_does_not_answer(home, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with dead_hub() as hub:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub)
        monkeypatch.setattr(measure, "single_flight", SingleFlight())
        real = measure.single_flight.ask
        monkeypatch.setattr(measure.single_flight, "ask", lambda *args, wait=3.0: real(*args, wait=min(wait, 0.1)))
        began = time.monotonic()
        for _ in range(5):
            found = summary({"model": "owner/far-away", "data": {"train": "sample"}, "method": {"name": "lora"}})
            assert f"The Hub ({hub}) does not answer." in found["service"]
            assert found["fault"] is None
        assert time.monotonic() - began < 20  # each would wait five seconds for an answer
        order = config.build({"data": {"train": "owner/data-set"}, "method": {"name": "lora"}})
        with pytest.raises(Unanswered):
            measure.read("owner/data-set", order)
