"""The answer is JSON, and as a schema says."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from studio.evaluation import schema
from studio.evaluation.questions import Question
from studio.evaluation.scores import final
from studio.evaluation.task import is_object, parsed
from studio.reward import Reward


class Json(Reward):
    """As the scores json_valid and json_schema of an evaluation."""

    name: Literal["json"] = Field("json", frozen=True, title="Reward", description="JSON.")
    list_position: ClassVar[int] = 3
    label: ClassVar[str] = "JSON"
    about: ClassVar[str] = (
        "1 where the answer is a JSON object or list and nothing beside, and as the schema says, else 0."
    )

    json_schema: schema.JsonSchema | None = Field(None, title="JSON Schema")
    """What the answer must be like; left out: any object or list."""

    @property
    def patterns(self) -> tuple[str, ...]:
        return tuple(schema.patterns(self.json_schema))

    def score(self, text: str, question: Question) -> float:
        text = final(text)
        if not is_object(text):
            return 0.0
        return float(self.json_schema is None or schema.fulfils(parsed(text), self.json_schema))
