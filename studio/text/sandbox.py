"""The only Jinja this program runs: sandboxed, bounded, and telling which characters an assistant wrote.

Chat templates come from the Hub with a model: they are programs by strangers. They see plain strings, lists and dicts,
can call nothing of Python, and are stopped when they loop, grow or run too long (bounds.py). The environment offers
what transformers' own renderer offers (a test compares them), without its import of a second, but for some filters that
no chat template needs and that take long over a long text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from studio.text.bounds import (
    ELEMENTS,
    Budget,
    budget,
    check_call,
    check_format,
    check_numbers,
    check_text,
    counted,
    measure_arguments,
    measured,
)

QUESTION = 20.0  # of processor time, of all renders that answer one question of the page
# Filters over text of any length, by patterns or piece by piece; for web pages, not for chats.
REFUSED = ("pprint", "striptags", "truncate", "urlize", "wordcount", "wordwrap", "xmlattr")
OPEN, CLOSE = "\ufdd0", "\ufdd1"  # noncharacters: never valid in text that is exchanged
_allowance: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


class Allowance:
    """Processor time that is left to all renders of one question."""

    def __init__(self) -> None:
        self.left = QUESTION


@contextmanager
def allowance() -> Iterator[Allowance]:
    """Inside, all renders of this thread share QUESTION seconds. Within another, it is that one's."""
    shared = _allowance.get()
    current = shared or Allowance()
    token = _allowance.set(current)
    try:
        yield current
    finally:
        _allowance.reset(token)


def spent() -> bool:
    """Whether this question's renders have used up what they share."""
    allowed = _allowance.get()
    return allowed is not None and allowed.left <= 0


class Bounds(Extension):
    """Makes loops, macros, `~` and the {% generation %} tag go through the budget and the span markers."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller: Any) -> str:
        return OPEN + caller() + CLOSE

    def tick(self) -> str:
        return budget.get().step()

    def glue(self, *parts: Any) -> str:
        return counted("".join(map(str, map(measured, parts))))

    def hold(self, value: Any) -> Any:
        return measured(value)

    def bound(self, tree: nodes.Template) -> nodes.Template:
        for kind in (nodes.For, nodes.Macro, nodes.CallBlock):
            for node in list(tree.find_all(kind)):
                tick = nodes.ExprStmt(self.call_method("tick", lineno=node.lineno)).set_lineno(node.lineno)
                node.body.insert(0, tick)
        return _Glue(self).visit(tree)


class _Glue(NodeTransformer):
    """Lets `~`, and every list, tuple and dict that a template writes, go through the budget."""

    def __init__(self, bounds: Bounds):
        self.bounds = bounds

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self.bounds.call_method("glue", list(node.nodes), lineno=node.lineno)

    def _held(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load":
            return node  # names that are set
        return self.bounds.call_method("hold", [node], lineno=node.lineno)

    visit_List = visit_Tuple = visit_Dict = _held


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with bounds on operators, calls and filters."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return self.extensions[Bounds.identifier].bound(super()._parse(source, name, filename))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, str) and isinstance(right, str):  # nearly all there are
            budget.get().grow(len(left) + len(right))
            return left + right
        check_numbers(operator, left, right)
        measured(left)
        measured(right)
        if operator == "+" and isinstance(left, (str, list, tuple)):
            budget.get().grow(len(left) + (len(right) if isinstance(right, (str, list, tuple)) else 0))
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
                    budget.get().grow(len(sequence) * max(times, 0))
                    if not isinstance(sequence, str) and len(sequence) * max(times, 0) > ELEMENTS:
                        raise SecurityError("it produces too much text")
        if operator == "%" and isinstance(left, str):
            check_format(left)
        return measured(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        check_call(__obj, args)
        measure_arguments(args, kwargs)
        return measured(super().call(__context, __obj, *args, **kwargs))


def _filter(name: str, inner: Any) -> Any:
    """A filter of Jinja's behind the same bounds; those that take the environment keep taking it."""
    skip = 1 if getattr(inner, "jinja_pass_arg", None) else 0

    def bounded(*args: Any, **kwargs: Any) -> Any:
        rest = args[skip:]
        budget.get().step()
        measure_arguments(rest, kwargs)
        if any(isinstance(a, int) and abs(a) > 10_000 for a in (*rest[1:], *kwargs.values())):
            raise SecurityError("it passes an enormous number")
        if rest and isinstance(rest[0], str):
            check_text(rest[0], name, rest[1:])
        elif name == "join" and rest and isinstance(rest[0], (list, tuple)):
            check_text(str(rest[1]) if len(rest) > 1 else "", "join", (rest[0],))
        return measured(inner(*args, **kwargs))

    if skip:
        bounded.jinja_pass_arg = inner.jinja_pass_arg  # type: ignore[attr-defined]
    return bounded


def _fail(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > 20_000:
        raise SecurityError("it loops too long")
    return numbers


class Namespace(jinja2.utils.Namespace):
    """Jinja's, refusing names that reach into Python."""

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"it sets the attribute {name!r}")
        super().__setitem__(name, value)


@lru_cache(maxsize=1)
def environment() -> Sandbox:
    """The one environment, as transformers sets it up: trim_blocks, lstrip_blocks, loop controls."""
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Bounds, loopcontrols], finalize=counted)
    for name in ("lipsum", "cycler", "joiner"):
        sandbox.globals.pop(name, None)
    sandbox.globals |= {
        "raise_exception": _fail,
        "strftime_now": lambda pattern: datetime.now().strftime(pattern),
        "namespace": Namespace,
        "range": _range,
    }
    sandbox.filters = {name: _filter(name, inner) for name, inner in sandbox.filters.items() if name not in REFUSED}
    sandbox.filters["tojson"] = _filter("tojson", _tojson)
    return sandbox


@lru_cache(maxsize=64)
def compiled(source: str) -> jinja2.Template:
    """The template, compiled once. Raises jinja2.TemplateSyntaxError."""
    return environment().from_string(source)


def render(source: str, variables: dict[str, Any]) -> str:
    """The text, with OPEN and CLOSE around {% generation %} spans. Raises jinja2.TemplateError or RecursionError."""
    if spent():
        raise SecurityError("it took too long for one question")
    allowed, begun, token = _allowance.get(), time.thread_time(), budget.set(Budget())
    try:
        return compiled(source).render(variables)
    finally:
        budget.reset(token)
        if allowed:
            allowed.left -= time.thread_time() - begun
