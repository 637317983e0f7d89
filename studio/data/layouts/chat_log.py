"""A log of an OpenAI-style API: {"request": {"messages": […]}, "response": {"choices": […]}}, or in `body`."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without

TITLE = "a log of requests and their responses"
KEYS = frozenset(("response", "completion", "output", "outputs"))
REQUESTS = ("request", "input", "inputs", "body", "params")


def _body(value: Any) -> dict[str, Any]:
    value = value if isinstance(value, dict) else {}
    return value["body"] if isinstance(value.get("body"), dict) else value


def match(row: Row) -> tuple[str | None, str] | None:
    """The columns of request and response; the request's is None where the row itself is the request."""
    for name in KEYS:
        choices = _body(row.get(name)).get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(first, dict) and isinstance(first.get("message"), dict):
            if isinstance(row.get("messages"), list):
                return None, name
            requests = (n for n in REQUESTS if isinstance(_body(row.get(n)).get("messages"), list))
            return next(((request, name) for request in requests), None)
    return None


def rewrite(row: Row, columns: tuple[str | None, str], report: ReportProblem) -> Row | None:
    request_name, name = columns
    choices = _body(row[name])["choices"]
    if len(choices) > 1:
        reason = f"There are {len(choices)} answers to one question; keep one of them."
        return report("wrong_type", f"{name}.choices", choices, reason)
    request = row if request_name is None else _body(row[request_name])
    rest = without(row, name, request_name, "messages", "tools")
    rewritten = rest | {"messages": [*request["messages"], choices[0]["message"]]}
    return rewritten | ({"tools": request["tools"]} if request.get("tools") else {})
