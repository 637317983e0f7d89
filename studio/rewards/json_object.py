"""The answer is JSON, and as a schema says."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from studio.evaluation import schema
from studio.evaluation.scores import final
from studio.evaluation.task import is_object, parsed
from studio.reward import Asked, Reward


class Json(Reward):
    """As the scores json_valid and json_schema of an evaluation."""

    name: Literal["json"] = Field("json", frozen=True, title="Reward", description="JSON.")
    list_position: ClassVar[int] = 3
    label: ClassVar[str] = "JSON"
    about: ClassVar[str] = (
        "1 where the answer is a JSON object or list and nothing beside, and as the schema says, else 0."
    )

    json_schema: dict[str, Any] | None = Field(
        None, title="JSON Schema", description="What the answer must be like; left out: any object or list."
    )

    @field_validator("json_schema")
    @classmethod
    def _check_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            if value is not None:
                schema.check(value)
        except ValueError as error:
            raise ValueError(f"this is no JSON Schema: {error}") from None
        return value

    def score(self, text: str, asked: Asked) -> float:
        text = final(text)
        if not is_object(text):
            return 0.0
        return float(self.json_schema is None or schema.fulfils(parsed(text), self.json_schema))
