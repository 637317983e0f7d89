"""ChatML as raw text: <|im_start|>role … <|im_end|> in one column, or in a file of nothing else."""

from __future__ import annotations

import re
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.roles import ROLES, role_order_problem

TITLE = "ChatML text"
ABOUT = "Conversations already written out with <|im_start|> tags."
ORDER = 20
COLUMNS = {"text": ("text", "prompt", "content", "conversation", "chat", "messages")}
START, END = "<|im_start|>", "<|im_end|>"
TURN = re.compile(r"<\|im_start\|>[ \t]*([^\n<]*)\n(.*?)(?:\n?<\|im_end\|>|\Z)", re.DOTALL)


def fits(row: Row) -> bool:
    return _column(row) is not None


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    name = _column(row)
    if name is None:
        return report("missing_field", "text", list(row))
    whole = row[name]
    starts, ends = whole.count(START), whole.count(END)
    if ends != starts and not (ends == starts - 1 and whole.rfind(START) > whole.rfind(END)):
        return report("broken_tags", name, whole, f"{starts} turns are opened and {ends} are closed.")
    messages = []
    for n, (role_name, content) in enumerate(TURN.findall(whole)):
        role = ROLES.get(role_name.strip().lower())
        if role is None:
            return report("unknown_role", f"{name}[{n}]", role_name)
        if content or role != "assistant":  # an open last turn of the assistant is a prompt, not an answer
            messages.append({"role": role, "content": content})
    if not messages:
        return report("broken_tags", name, whole)
    wrong = role_order_problem(tuple(m["role"] for m in messages))
    if wrong:
        report(wrong[0], f"{name}[{wrong[1]}]", messages[wrong[1]]["content"], wrong[2])
        if wrong[0] == "no_assistant":
            return None
    return {"messages": messages}


def _column(row: Row) -> str | None:
    return next((name for name, value in row.items() if isinstance(value, str) and START in value), None)
