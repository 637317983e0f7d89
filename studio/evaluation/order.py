"""The order of an evaluation by answers: how many, how long, and what they must be like."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from studio.evaluation import schema
from studio.knob import KNOBS
from studio.text.patterns import Pattern

ROWS = 200
AUTO = "auto"


class EvaluationOrder(BaseModel):
    """After training the base and the tuned model answer held-out questions, and the answers are scored."""

    model_config = KNOBS

    rows: int = Field(ROWS, ge=0, le=5000, title="Questions")
    """Held-out questions that both models answer, at most."""
    max_new_tokens: int | Literal["auto"] = Field(AUTO, title="Longest answer")
    """Tokens. auto: half as long again as the longest answer in the data."""
    regex: Pattern | None = Field(None, title="Pattern")
    """A regular expression that an answer must match as a whole."""
    json_schema: schema.JsonSchema | None = Field(None, title="JSON Schema")
    """The schema that an answer must fulfil as JSON."""

    @field_validator("max_new_tokens")
    @classmethod
    def _check_tokens(cls, value: Any) -> Any:
        if value != AUTO and not 1 <= value <= 8192:
            raise ValueError("max_new_tokens should be auto or 1 to 8192")
        return value
