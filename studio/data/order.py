"""DataOrder: the `data:` section of a run's order."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, PrivateAttr, field_validator

from studio import new_tokens
from studio.knob import EVALUATION, KNOBS, LOADING

MOST_SOURCES = 200  # each is read, and open while it is
Decision = Literal["drop", "keep", "stop"]


class Source(BaseModel):
    """One of several data sets that are mixed."""

    model_config = KNOBS
    source: Annotated[
        str, Field(min_length=1, title="Source", description="File, Hub id (with :split) or sample:NAME.")
    ]
    weight: Annotated[
        float,
        Field(
            1.0,
            gt=0,
            le=100,
            title="Weight",
            description="Times an epoch sees this data set: 0.5 a random half of it, 2 all of it twice.",
        ),
    ]


class DataOrder(BaseModel):
    """What is trained on, how it is read, and what is done with rows that have problems."""

    model_config = KNOBS

    train: str | list[Source] = Field(title="Training data")
    """A file, a Hub id (with :split), sample:NAME, or several with weights. The one thing an order must name."""
    eval: Annotated[float, Field(ge=0, le=0.5)] | str | None = Field(0.05, title="Held-out data")
    """The share of rows kept apart to measure on, or a file of its own; 0 for none."""
    eval_rows: int = Field(2000, ge=1, title="Held-out rows at most", json_schema_extra=EVALUATION)
    """Of a larger share so many are kept apart, spread over short and long rows, and the rest is trained on: measuring
    takes time too."""
    format: str = Field("auto", title="Format", json_schema_extra=LOADING)
    """How the rows are laid out; auto recognises it from their content."""
    encoding: str = Field("auto", title="Encoding", json_schema_extra=LOADING)
    """In which encoding text files are written, such as cp1251, shift_jis or big5; auto stops where it is not sure."""
    mapping: dict[str, Any] | None = Field(None, title="Column mapping")
    """Which column holds what, where recognition is unsure: {prompt: …, answer: …, system: …}."""
    template: str = Field("auto", title="Chat template", json_schema_extra=LOADING)
    """How a conversation becomes text; auto takes the model's own if it has one, else one whose marks are tokens of the
    model."""
    new_tokens: Annotated[tuple[str, ...], AfterValidator(lambda texts: new_tokens.check(texts) or texts)] = Field(
        (), max_length=1000, title="New tokens", json_schema_extra=LOADING
    )
    """Special tokens that the model gets, such as <tool>; their rows of embedding and head are trained, by LoRA, QLoRA
    or full fine-tuning. What is one token already stays as it is."""
    max_length: int = Field(1024, ge=8, le=1_048_576, title="Longest row")
    """In tokens. Memory and time grow with it; what is longer is cut or dropped."""
    too_long: Literal["cut", "drop", "split"] = Field("cut", title="Rows that are too long", json_schema_extra=LOADING)
    """Cut them at the limit (the end is not learnt), drop them whole, or split plain text into pieces (conversations
    are cut)."""
    overlap: int = Field(0, ge=0, le=100_000, title="Overlap of pieces", json_schema_extra=LOADING)
    """Tokens that a piece of a split text begins with again, read but not learnt twice; at most half of the longest
    row."""
    train_on: Literal["assistant", "last", "all"] = Field("assistant", title="Train on", json_schema_extra=LOADING)
    """All answers, the last answer of each row, or everything (for plain text)."""
    reasoning: Literal["auto", "keep", "drop", "mask_empty"] = Field(
        "auto", title="Reasoning", json_schema_extra=LOADING
    )
    """Thinking before an answer: keep trains it in every row, drop leaves it out. mask_empty and auto keep it where
    there is some, and do not train the empty block that templates such as qwen3's write where there is none."""
    problems: dict[str, Decision] = Field(default_factory=dict, title="Decisions on problems")
    """By kind of problem: drop those rows, keep them, or stop."""

    @field_validator("train", mode="before")
    @classmethod
    def _not_too_many(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) > MOST_SOURCES:
            raise ValueError(f"{len(value):,} data sets are named, and {MOST_SOURCES} can be mixed")
        return value

    @field_validator("train")
    @classmethod
    def _named(cls, value: str | list[Source]) -> str | list[Source]:
        if not value:
            raise ValueError("name a file, a Hub id or sample")
        return value

    _examples: str = PrivateAttr("answers")
    _answer_tokens: int = PrivateAttr(0)

    @property
    def examples(self) -> str:
        """What the order's stage learns from: "answers", "pairs" or "verdicts" (stage.EXAMPLES)."""
        return self._examples

    @property
    def answer_tokens(self) -> int:
        """Tokens that are kept free behind each row, for an answer that the model writes."""
        return self._answer_tokens

    def learnt_by(self, examples: str, answer_tokens: int = 0) -> DataOrder:
        """This order, for a stage that learns from such examples. RunConfig says so to its own."""
        self._examples, self._answer_tokens = examples, answer_tokens
        return self

    def sources(self) -> list[Source]:
        """The training data as a list, also when it is one name."""
        return [Source(source=self.train)] if isinstance(self.train, str) else list(self.train)
