"""The order of an evaluation by answers: how many, how long, and what they must be like."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from studio.evaluation import schema
from studio.text.patterns import compile_pattern

ROWS = 200
AUTO = "auto"


class EvaluationOrder(BaseModel):
    """After training the base and the tuned model answer held-out questions, and the answers are scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(
        ROWS, ge=0, le=5000, title="Questions", description="Held-out questions that both models answer, at most."
    )
    max_new_tokens: int | Literal["auto"] = Field(
        AUTO, title="Longest answer", description="Tokens. auto: half as long again as the longest answer in the data."
    )
    regex: str | None = Field(
        None, max_length=2000, title="Pattern", description="A regular expression that an answer must match as a whole."
    )
    json_schema: dict[str, Any] | None = Field(
        None, title="JSON Schema", description="The schema that an answer must fulfil as JSON."
    )

    @field_validator("max_new_tokens")
    @classmethod
    def _check_tokens(cls, value: Any) -> Any:
        if value != AUTO and not 1 <= value <= 8192:
            raise ValueError("max_new_tokens should be auto or 1 to 8192")
        return value

    @field_validator("regex")
    @classmethod
    def _check_regex(cls, value: str | None) -> str | None:
        try:
            compile_pattern(value or "")
        except ValueError as error:
            raise ValueError(f"regex cannot be read: {error}") from None
        return value

    @field_validator("json_schema")
    @classmethod
    def _check_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            if value is not None:
                schema.check(value)
        except ValueError as error:
            raise ValueError(f"json_schema is no JSON Schema: {error}") from None
        return value
