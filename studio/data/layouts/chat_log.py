"""A log of an OpenAI-style API, with or without `body`.

{"request": {"messages": […]}, "response": {"choices": [{"message": …}]}}
"""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.tracked_row import without

TITLE = "a log of requests and their responses"
KEYS = frozenset(("response", "completion", "output"))
REQUESTS = ("request", "input", "body", "params")


def _body(value: Any) -> dict[str, Any]:
    value = value if isinstance(value, dict) else {}
    return value["body"] if isinstance(value.get("body"), dict) else value


def _answer(row: Row) -> tuple[str, Any] | None:
    for name in KEYS:
        choices = _body(row.get(name)).get("choices")
        if (
            isinstance(choices, list)
            and choices
            and isinstance(choices[0], dict)
            and isinstance(choices[0].get("message"), dict)
        ):
            return name, choices
    return None


def _asked(row: Row) -> tuple[str | None, dict[str, Any]]:
    if isinstance(row.get("messages"), list):
        return None, row
    return next(
        ((n, _body(row[n])) for n in REQUESTS if isinstance(_body(row.get(n)).get("messages"), list)), (None, {})
    )


def fits(row: Row) -> bool:
    return _answer(row) is not None and bool(_asked(row)[1])


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    name, choices = _answer(row)
    if len(choices) > 1:
        report(
            "wrong_type",
            f"{name}.choices",
            choices,
            f"There are {len(choices)} answers to one question; keep one of them.",
        )
        return None
    request_name, request = _asked(row)
    rest = without(row, name, request_name, "messages", "tools")
    rewritten = rest | {"messages": [*request["messages"], choices[0]["message"]]}
    return rewritten | ({"tools": request["tools"]} if request.get("tools") else {})
