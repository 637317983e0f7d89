"""What APIs take and give: logs of requests, OpenAI's Responses, Gemini's contents, questions with tools."""

from __future__ import annotations

from typing import Any

from studio.data.formats import HISTORY, ReportProblem, Row, alpaca, without
from studio.data.formats.history import history_in
from studio.data.formats.messages import are_turns
from studio.data.formats.prompt import COLUMNS
from studio.data.layouts import Layout
from studio.data.roles import MESSAGE_COLUMNS
from studio.text import tool_calls

REQUESTS = ("request", "input", "inputs", "body", "params")
RESPONSES = frozenset(("response", "completion", "output", "outputs"))
ITEMS = ("input", "items", "output")
TYPES = frozenset(("message", "function_call", "function_call_output", "reasoning"))
SYSTEM = ("systemInstruction", "system_instruction")
TOOLS = tool_calls.DECLARED
CALLS = ("answers", "calls", "tool_calls", "function_calls", "function_call")
ANSWERS = (*COLUMNS["answer"], *CALLS)


# A log of an OpenAI-style API: {"request": {"messages": […]}, "response": {"choices": […]}}, or in `body`.
def _body(value: Any) -> dict[str, Any]:
    value = value if isinstance(value, dict) else {}
    return value["body"] if isinstance(value.get("body"), dict) else value


def _match_log(row: Row) -> tuple[str | None, str] | None:
    """The columns of request and response; the request's is None where the row itself is the request."""
    for name in RESPONSES:
        choices = _body(row.get(name)).get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(first, dict) and isinstance(first.get("message"), dict):
            if isinstance(row.get("messages"), list):
                return None, name
            requests = (n for n in REQUESTS if isinstance(_body(row.get(n)).get("messages"), list))
            return next(((request, name) for request in requests), None)
    return None


def _rewrite_log(row: Row, columns: tuple[str | None, str], report: ReportProblem) -> Row | None:
    request_name, name = columns
    choices = _body(row[name])["choices"]
    if len(choices) > 1:
        reason = f"There are {len(choices)} answers to one question; keep one of them."
        return report("wrong_type", f"{name}.choices", choices, reason)
    request = row if request_name is None else _body(row[request_name])
    rest = without(row, name, request_name, "messages", "tools")
    rewritten = rest | {"messages": [*request["messages"], choices[0]["message"]]}
    return rewritten | ({"tools": request["tools"]} if request.get("tools") else {})


# OpenAI's Responses: messages, function_call and function_call_output as items of `input` and `output`.
def _match_responses(row: Row) -> list[str] | None:
    """The columns that hold items; None where no item has one of the types."""
    names = [
        n for n in ITEMS if isinstance(row.get(n), list) and row[n] and all(isinstance(item, dict) for item in row[n])
    ]
    typed = any(item.get("type") in TYPES for n in names for item in row[n])
    return names if typed and "messages" not in row else None


def _rewrite_responses(row: Row, names: list[str], report: ReportProblem) -> Row | None:
    turns: list[dict[str, Any]] = []
    if isinstance(row.get("input"), str):
        turns.append({"role": "user", "content": row["input"]})
        names = ["input", *names]
    for name in names:
        for n, item in enumerate(row[name] if isinstance(row[name], list) else ()):
            turn = _item(item)
            if turn is None:
                return report(
                    "wrong_type", f"{name}[{n}]", item, "An item must be a message, a function_call or its output."
                )
            calling = "tool_calls" in turn and turns and turns[-1]["role"] == "assistant"
            if calling:
                turns[-1]["tool_calls"] = [*turns[-1].get("tool_calls", ()), *turn["tool_calls"]]
            elif turn:
                turns.append(turn)
    if isinstance(row.get("instructions"), str):
        turns.insert(0, {"role": "system", "content": row["instructions"]})
    return without(row, *names, "instructions") | {"messages": turns}


def _item(item: dict[str, Any]) -> dict[str, Any] | None:
    """The item as a turn of a chat; {} where it says nothing, None where it is of another type."""
    kind = item.get("type")
    if kind == "function_call":
        call = {"function": {"name": item.get("name"), "arguments": item.get("arguments")}}
        if isinstance(item.get("call_id"), str):
            call["id"] = item["call_id"]
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "content": item.get("output"), "tool_call_id": item.get("call_id")}
    if kind == "reasoning":
        parts = [part.get("text") for part in item.get("summary") or () if isinstance(part, dict)]
        return {"role": "thought", "content": "\n".join(filter(None, parts))} if any(parts) else {}
    return dict(item) if "role" in item and kind in ("message", None) else None


# Gemini and Vertex AI: {"systemInstruction": …, "contents": [{"role", "parts": [{"text"}]}], "tools": …}.
def _match_gemini(row: Row) -> bool:
    return are_turns(row.get("contents"))


def _rewrite_gemini(row: Row, matches: bool, report: ReportProblem) -> Row | None:
    name = next((n for n in SYSTEM if row.get(n)), None)
    rest = without(row, "contents", "tools", name)
    messages = list(row["contents"])
    if name:
        content = row[name]
        turn = dict(content) if isinstance(content, dict) else {"content": content}
        messages.insert(0, turn | {"role": "system"})
    return rest | {"messages": messages} | ({"tools": _tools(row["tools"])} if row.get("tools") else {})


def _tools(tools: Any) -> Any:
    """Function declarations as OpenAI writes tools."""
    if not isinstance(tools, list):
        return tools
    openai_tools = []
    for tool in tools:
        declared = (
            tool.get("functionDeclarations", tool.get("function_declarations")) if isinstance(tool, dict) else None
        )
        if isinstance(declared, list):
            openai_tools += [{"type": "function", "function": declaration} for declaration in declared]
        else:
            openai_tools.append(tool)
    return openai_tools


# A question, its answer and the tools at hand in columns: {"query", "answers": [{"name", "arguments"}], "tools"}.
def _match_tools(row: Row) -> tuple[str, str] | None:
    """The columns of question and answer."""
    if any(name in row for name in (*MESSAGE_COLUMNS, "chosen")):
        return None
    question = next((name for name in COLUMNS["prompt"] if isinstance(row.get(name), str) and row[name].strip()), None)
    answer = next((name for name in ANSWERS if row.get(name) and name != question), None)
    if not question or not answer:
        return None
    declared = any(tool_calls.tools_of(row.get(name)) for name in TOOLS)
    return (question, answer) if declared or (answer in CALLS and tool_calls.calls_of(row[answer])) else None


def _rewrite_tools(row: Row, columns: tuple[str, str], report: ReportProblem) -> Row | None:
    question, answer = columns
    asked, answered = row[question], row[answer]
    if question == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        asked = f"{asked}\n{row['input']}"
    before = history_in(row, report, asked)
    if before is None:
        return None
    if isinstance(answered, str) and answered.strip() in ("[]", "{}"):
        return report("empty_field", answer, answered, "No function is called and nothing is said.")
    calls = tool_calls.calls_of(answered)
    if not isinstance(answered, str) and not calls:
        return report("wrong_type", answer, answered, "The answer must be text, or calls with name and arguments.")
    turn: dict[str, Any] = {"role": "assistant", "content": answered}
    if not any(row.get(name) for name in TOOLS) or not isinstance(answered, str):
        turn |= {"content": "", "tool_calls": calls} if calls else {}
    rest = without(row, question, answer, *HISTORY, "input" if alpaca.fits(row) else None)
    return rest | {"messages": [*before, {"role": "user", "content": asked}, turn]}


LAYOUTS = (
    Layout("a log of requests and their responses", _match_log, _rewrite_log, RESPONSES),
    Layout("items, as OpenAI's Responses have them", _match_responses, _rewrite_responses, frozenset(ITEMS), order=30),
    Layout(
        "contents and parts, as Gemini and Vertex AI write them",
        _match_gemini,
        _rewrite_gemini,
        frozenset(("contents",)),
        column="contents",
    ),
    Layout(
        "questions and answers with tools, as in xLAM",
        _match_tools,
        _rewrite_tools,
        frozenset((*TOOLS, *CALLS)),
        order=70,
    ),
)
