"""Another model, behind an OpenAI-style endpoint, marks the answer from 0 to 10."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from studio.evaluation.endpoint import EndpointOrder
from studio.evaluation.questions import Question
from studio.knob import OPTIMISATION
from studio.reward import Reward

PROMPT = """Mark the answer to the question: 0 is useless, 10 could not be better. Length does not matter.

[Question]
{question}

[A good answer, for comparison]
{reference}

[Answer]
{answer}

Reply with the mark alone, as [[7]]."""
SLOTS = re.compile(r"\{(question|reference|answer)\}")
MARK = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]|^\W*(\d+(?:\.\d+)?)(?:\s*/\s*10)?\W*$")
HIGHEST = 10


class Judge(EndpointOrder, Reward):
    """The endpoint is asked as by `judge`: no faster than ordered, each reply kept, its key from the environment."""

    name: Literal["judge"] = Field("judge", frozen=True, title="Reward", description="A judge.")
    list_position: ClassVar[int] = 7
    label: ClassVar[str] = "A judge"
    about: ClassVar[str] = (
        "The mark that a model behind an OpenAI-style address gives, from 0 to 1. Questions and answers are sent "
        "there; its key stands in STUDIO_JUDGE_KEY."
    )

    prompt: str = Field(PROMPT, max_length=20_000, title="What it is asked", json_schema_extra=OPTIMISATION)
    """With {question} and {answer}; {reference} is optional. The reply must hold the mark, 0 to 10."""

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, value: str) -> str:
        if missing := [name for name in ("question", "answer") if f"{{{name}}}" not in value]:
            raise ValueError(f"the judge's prompt has no place for {', '.join(missing)}")
        return value

    @property
    def address(self) -> str:
        return self.url

    def filled(self, text: str, question: Question) -> str:
        """What the judge is asked about an answer."""
        texts = {"question": question.text, "reference": question.reference, "answer": text}
        return SLOTS.sub(lambda slot: texts[slot[1]], self.prompt)


def mark(reply: str) -> float | None:
    """The mark in a reply, from 0 to 1; None where it holds none."""
    text = re.sub(r"<think>.*?</think>", "", reply, flags=re.S).strip()
    marks = MARK.findall(text)
    return min(float(marks[-1][0] or marks[-1][1]), HIGHEST) / HIGHEST if marks else None
