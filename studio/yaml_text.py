"""YAML that a person wrote, as plain values. A key that stands twice is refused, where YAML takes the later one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from studio.errors import OrderError
from studio.json_text import nesting_error

DEEPEST = 30  # levels of an order, and aliases in it; a real one has five and none
# ten times as fast where libyaml is: a home may hold hundreds of orders
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(FAST):  # type: ignore[misc, valid-type]
    """The safe loader, refusing a key that stands twice in one mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            lines: dict[Any, int] = {}
            for name, _ in node.value:
                if name.tag == "tag:yaml.org,2002:merge":
                    continue  # <<: another mapping's keys
                key, line = self.construct_object(name, deep=True), name.start_mark.line + 1
                if not isinstance(key, Hashable):
                    continue  # the loader says so itself
                if key in lines:
                    message = f"The key {key} stands twice, on line {lines[key]} and on line {line}."
                    hint = "Keep one of the two lines: which one was meant cannot be told."
                    raise OrderError(message, hint, str(key))
                lines[key] = line
        return super().construct_mapping(node, deep)


def read(text: str, where: str = "the order", loader: type[Loader] | None = None) -> Any:
    """The values in a YAML text. Raises OrderError: no YAML, a key twice, nested too deeply."""
    try:
        _check_depth(text, FAST, where)
        return yaml.load(text, Loader=loader or Loader)
    except yaml.YAMLError as error:
        raise _refused(_python_error(text, where) or error, where) from error
    except RecursionError:
        raise nesting_error(where) from None


def _check_depth(text: str, loader: Any, where: str) -> None:
    """Counted before anything is built: nesting without end would crash the parser, and aliases multiply."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=loader):  # one after the other, however deep
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST or aliases > DEEPEST:
            raise nesting_error(where)


def _python_error(text: str, where: str) -> yaml.YAMLError | None:
    """The mistake as Python's parser finds it: it names the place more exactly than libyaml, and has no depth limit."""
    try:
        _check_depth(text, yaml.SafeLoader, where)
        yaml.safe_load(text)
    except yaml.YAMLError as error:
        return error
    return None


def _refused(error: yaml.YAMLError, where: str) -> OrderError:
    mark = getattr(error, "problem_mark", None)
    line = f" on line {mark.line + 1}" if mark else ""
    hint = "Check indentation and colons there."
    return OrderError(f"{where} is not YAML{line}: {getattr(error, 'problem', error)}.", hint, where)
