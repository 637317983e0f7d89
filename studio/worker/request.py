"""The schemas of requests to the model server: OpenAI's chat completions and completions, and a few common extensions.

A setting that would change an answer and is not supported is refused, never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from studio.data.roles import ROLES
from studio.errors import ModelError

Kind = TypeVar("Kind", bound=BaseModel)
RESERVED = {"messages", "add_generation_prompt"}  # template variables that a request may not set
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Streaming(Options):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Plain(Options):
    type: Literal["text"]


class Part(BaseModel):
    """A part of a message. Only text is supported."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn. Other keys, like tool_calls, go to the chat template unchanged."""

    model_config = ConfigDict(extra="allow", strict=True)
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    @field_validator("role")
    @classmethod
    def _known(cls, role: str) -> str:
        if role not in ROLES:
            raise ValueError("should be system, user, assistant or tool")
        return ROLES[role]

    def plain(self) -> dict[str, Any]:
        """The message for a template: its content as one text."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or [])
        return {**self.model_dump(exclude_none=True), "content": content}


class Sampled(Options):
    """The settings of both kinds of request."""

    model: str = ""
    stream: bool | None = None
    stream_options: Streaming | None = None
    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, ge=0.001, le=1)
    top_k: int | None = Field(None, ge=0, le=100_000)
    repetition_penalty: float | None = Field(None, ge=0.5, le=3)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Bias] | None = Field(None, max_length=1000)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: Stop | Annotated[list[Stop], Field(max_length=64)] | None = None
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    n: Literal[1] | None = None
    # of OpenAI's own bookkeeping: they change no answer
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None

    @field_validator("logit_bias")
    @classmethod
    def _tokens(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        if bias and not all(key.isascii() and key.isdigit() and len(key) < 10 for key in bias):
            raise ValueError("its keys should be numbers of tokens")
        return bias

    def sampling(self) -> dict[str, Any]:
        """The arguments of worker/generate.py's Sampling."""
        names = (
            "temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
            "max_tokens"
        )  # fmt: skip
        settings = {name: value for name in names if (value := getattr(self, name)) is not None}
        settings["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if self.logit_bias:
            settings["logit_bias"] = tuple((int(token), value) for token, value in self.logit_bias.items())
        return settings


class ChatRequest(Sampled):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Plain | None = None
    modalities: list[Literal["text"]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _free(cls, more: dict[str, Any] | None) -> dict[str, Any] | None:
        if more and RESERVED & more.keys():
            raise ValueError(f"{', '.join(sorted(RESERVED & more.keys()))} cannot be set")
        return more

    @property
    def callable_tools(self) -> list[dict[str, Any]]:
        """The tools whose calls are looked for in the answer."""
        return [] if self.tool_choice == "none" else self.tools or []

    def sampling(self) -> dict[str, Any]:
        settings = super().sampling()
        if self.max_completion_tokens:
            settings["max_tokens"] = self.max_completion_tokens
        return settings | ({"logprobs": self.top_logprobs or 0} if self.logprobs else {})

    def variables(self) -> dict[str, Any]:
        """The variables of the chat template besides the messages."""
        return {**(self.chat_template_kwargs or {}), **({"tools": self.callable_tools} if self.callable_tools else {})}


class TextRequest(Sampled):
    """POST /v1/completions: a text is continued without a template."""

    prompt: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1, max_length=1)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None
    logprobs: Literal[0] | None = None

    @property
    def text(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class Names(Options):
    """POST /studio/load and /studio/unload."""

    names: list[str] = Field(max_length=100)
    token: str | None = None  # of the Hub, to fetch what is not here


class RequestError(ModelError, ValueError):
    """A request that does not fit its schema."""


def read(kind: type[Kind], body: Any) -> Kind:
    """Validate a request. Raises RequestError that names the field, its value and what is wrong with it."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        # without the names that pydantic gives to the alternatives of a value: stop, not stop.constrained-str
        parts = [part for part in first["loc"] if isinstance(part, int) or (part.isidentifier() and part != "str")]
        field = ".".join(map(str, parts))
        if first["type"] == "extra_forbidden":
            raise RequestError(f"There is no setting {field} here.", "Leave it out.", field) from None
        value = "" if first["type"] == "missing" else f" It is {str(first['input'])[:80]!r}."
        message = f"{field or 'The request'}: {first['msg'].removeprefix('Value error, ')}.{value}"
        hint = "Correct it, or leave it out where it is optional."
        raise RequestError(message, hint, field or "body") from None


STATUSES = {
    200: "The answer.",
    400: "Refused, with a sentence.",
    401: "The key is missing or wrong.",
    404: "No such model.",
    503: "No room for it.",
}


def openapi() -> dict[str, Any]:
    """The server's OpenAPI description."""
    schemas: dict[str, Any] = {}

    def request_body(kind: type[BaseModel]) -> dict[str, Any]:
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[kind.__name__] = schema
        return {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}},
        }

    answers = {str(status): {"description": text} for status, text in STATUSES.items()}
    name = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths: dict[str, Any] = {
        "/v1/models": {"get": {"summary": "The models in memory", "responses": answers}},
        "/v1/models/{model}": {"get": {"summary": "One of them", "parameters": name, "responses": answers}},
        "/v1/chat/completions": {
            "post": {
                "summary": "An answer in a conversation",
                "requestBody": request_body(ChatRequest),
                "responses": answers,
            }
        },
        "/v1/completions": {
            "post": {"summary": "A text gone on with", "requestBody": request_body(TextRequest), "responses": answers}
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Fine-Tuning Studio's model server", "version": "1"},
        "security": [{"key": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }
