"""A question that ends with the mark of its answer, "Human: … Assistant:", as the turns that it holds."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem
from studio.text.marks import asked


def asked_turns(question: str, name: str, report: ReportProblem) -> list[dict[str, Any]]:
    """The turns of a question: itself, or those that its marks part, which is then reported; none of them is learnt."""
    turns = asked(question)
    if turns is None:
        return [{"role": "user", "content": question}]
    report("open_prompt", name, question)
    return [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in turns]
