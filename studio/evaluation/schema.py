"""JSON Schemas of answers: checked when they are ordered, and followed without asking any other address."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Annotated, Any

import regex
from pydantic import AfterValidator

from studio.text.patterns import SECONDS, compile_pattern

MOST_CHARACTERS = 20_000  # of a schema written as JSON
MOST_PATTERNS = 20
TYPES = 7  # that JSON has
FOLLOWING = 1.0  # seconds of the processor to follow a schema: parts that refer to parts multiply
limit: ContextVar[float] = ContextVar("limit", default=float("inf"))
INSTANCES: tuple[Any, ...] = ({}, [], "", 0, None)


def checked(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema. Raises ValueError for what is no JSON Schema (draft 2020-12), or refers to what lies outside."""
    try:
        _check(schema)
    except ValueError as error:
        raise ValueError(f"this is no JSON Schema: {error}") from None
    return schema


JsonSchema = Annotated[dict[str, Any], AfterValidator(checked)]


def _check(schema: dict[str, Any]) -> None:
    from jsonschema import SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    text = json.dumps(schema)
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has more than {MOST_CHARACTERS:,} characters")
    for node in _nodes(schema):
        if isinstance(node.get("type"), list) and len(node["type"]) > TYPES:
            raise ValueError("there are not so many types")
        for key in ("$ref", "$dynamicRef"):
            if isinstance(node.get(key), str) and not node[key].startswith("#"):
                raise ValueError(f"{key} leads out of it ({node[key][:80]}); write what it names under $defs")
    searched = list(patterns(schema))
    if len(searched) > MOST_PATTERNS:
        raise ValueError(f"it has more than {MOST_PATTERNS} patterns")
    for pattern in searched:
        compile_pattern(pattern)
    limit.set(time.thread_time() + FOLLOWING)
    try:
        validator = _validator(text)
        validator.check_schema(schema)
        resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
        for node in _nodes(schema):
            if isinstance(node.get("$ref"), str):
                resolver.lookup(node["$ref"])
                for instance in INSTANCES:  # a reference that leads back to itself does so for any value
                    validator.evolve(schema={"$ref": node["$ref"]}).is_valid(instance)
        validator.is_valid({})
    except (SchemaError, Unresolvable) as error:
        raise ValueError(str(error).splitlines()[0]) from None
    except RecursionError:
        raise ValueError("it refers to itself without end") from None
    except TimeoutError:
        raise ValueError("it takes too long to follow: its parts refer to each other too often") from None


def patterns(schema: dict[str, Any] | None) -> Iterator[str]:
    """The regular expressions in a schema."""
    for node in _nodes(schema):
        names = node.get("patternProperties")
        for pattern in [node.get("pattern"), *(names if isinstance(names, dict) else ())]:
            if isinstance(pattern, str):
                yield pattern


def fulfils(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is as the schema says. Not where that cannot be told within the limits of time and depth."""
    limit.set(time.thread_time() + FOLLOWING)
    try:
        return _validator(json.dumps(schema)).is_valid(value)
    except (TimeoutError, RecursionError):
        return False


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a schema."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _nodes(inner)


@lru_cache(maxsize=8)
def _validator(text: str) -> Any:
    """The validator of a schema, written as JSON: no reference is fetched, and no pattern is searched for ever."""
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import extend
    from referencing import Registry

    def pattern(validator: Any, wanted: str, instance: Any, _: Any) -> Iterator[ValidationError]:
        if validator.is_type(instance, "string") and not _search(wanted, instance):
            yield ValidationError(wanted)

    def pattern_properties(validator: Any, schemas: dict[str, Any], instance: Any, _: Any) -> Iterator[ValidationError]:
        for key, value in instance.items() if validator.is_type(instance, "object") else ():
            for pattern_text, inner in schemas.items():
                if _search(pattern_text, key):
                    yield from validator.descend(value, inner, path=key, schema_path=pattern_text)

    def in_time(keyword: Any) -> Any:
        def check(*arguments: Any) -> Any:
            if time.thread_time() > limit.get():
                raise TimeoutError
            return keyword(*arguments)

        return check

    keywords = {**Draft202012Validator.VALIDATORS, "pattern": pattern, "patternProperties": pattern_properties}
    bounded = extend(Draft202012Validator, {name: in_time(keyword) for name, keyword in keywords.items()})
    return bounded(json.loads(text), registry=Registry())


def _search(pattern: str, text: str) -> bool:
    return regex.search(pattern, text, timeout=SECONDS) is not None
