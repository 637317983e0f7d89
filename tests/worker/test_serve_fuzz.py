"""The model server under requests made from its own description (schemathesis): lawful ones, and ones that break it in
one place.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from studio.talk import chat
from tests.worker.test_serve import QUESTION, server  # noqa: F401 - a fixture

MODES = ["positive", "negative"]  # as schemathesis names them


def aimed(body: Any, model: str) -> Any:
    """The same body at the model that is there, with a short answer: else every request ends at a name that nobody
    knows.
    """
    if not isinstance(body, dict):
        return body
    short = {
        name: min(body[name], 4) for name in ("max_tokens", "max_completion_tokens") if isinstance(body.get(name), int)
    }
    return {"max_tokens": 4, **body, **short, **({"model": model} if isinstance(body.get("model"), str) else {})}


def sent(told: dict[str, Any], model: str, mode: str, examples: int) -> dict[int, int]:
    """How often each status was answered over every operation, `examples` requests each.

    Fails at an answer of 500 or more.
    """
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(httpx.get(f"{told['address']}/openapi.json").json())
    statuses: dict[int, int] = {}
    headers = {"Authorization": f"Bearer {told['key']}"}
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
        def fuzz(case: Any) -> None:
            case.body = aimed(case.body, model)
            answer = case.call(base_url=told["address"], headers=headers, timeout=30)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code < 500, (case.method, case.path, case.body, answer.text[:300])
            if answer.status_code >= 400 and case.method != "HEAD":
                assert answer.json()["error"]["message"], (case.path, case.body)

        fuzz()
    return statuses


def alive(told: dict[str, Any], model: str) -> bool:
    asked = {"model": model, "messages": QUESTION, "max_tokens": 3, "temperature": 0}
    answer = httpx.post(
        f"{told['address']}/v1/chat/completions",
        json=asked,
        headers={"Authorization": f"Bearer {told['key']}"},
        timeout=30,
    )
    return answer.status_code == 200


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("examples", [5, pytest.param(300, marks=pytest.mark.rare)])
def test_no_request_breaks_the_server(
    server: chat.Server,  # noqa: F811
    tiny_model: Path,
    mode: str,
    examples: int,
) -> None:
    told = json.loads(chat._file().read_text())
    statuses = sent(told, str(tiny_model), mode, examples)
    assert sum(statuses.values()) >= 2 * examples
    assert (200 if mode == "positive" else 400) in statuses, statuses
    assert alive(told, str(tiny_model))
