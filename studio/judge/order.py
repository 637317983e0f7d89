"""The order of a judging: who judges, with which prompt, how fast."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from studio.errors import OrderError, wrong_setting
from studio.evaluation.endpoint import EndpointOrder, check_url

PROMPT = """Two assistants answered the same question. Decide which answer is better: right, complete, to the point.
The order of the answers and their length do not matter.

[Question]
{question}

[A good answer, for comparison]
{reference}

[Answer A]
{answer_a}

[Answer B]
{answer_b}

Reply with [[A]] if A is better, [[B]] if B is better, or [[C]] if they are equally good. Reply with nothing else."""


class JudgeOrder(EndpointOrder):
    """Who judges, what it is asked, and for how long."""

    prompt: str = Field(PROMPT, max_length=20_000)
    rows: int = Field(100, ge=1, le=1000)
    minutes: float = Field(30, gt=0, le=24 * 60)


def order_of(settings: dict[str, Any]) -> JudgeOrder:
    """The order from settings. Raises OrderError: a wrong setting, a prompt without both answers, a forbidden URL."""
    try:
        order = JudgeOrder.model_validate(settings)
    except ValidationError as error:
        raise wrong_setting(error, "judge") from error
    missing = [name for name in ("question", "answer_a", "answer_b") if f"{{{name}}}" not in order.prompt]
    if missing:
        hint = "Write {question}, {answer_a} and {answer_b} where they belong; {reference} is optional."
        raise OrderError(f"The judge's prompt has no place for {', '.join(missing)}.", hint, "judge.prompt")
    check_url(order.url)
    return order
