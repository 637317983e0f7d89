"""Templates by strangers: no filter, no nested value and no number holds the page for longer than a render may take."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from studio.errors import TemplateError
from studio.home import PROJECT
from studio.template import Template
from studio.text import bounds, sandbox

LAUGHS = (
    "{% set ns = namespace(x=['ha'], y=['ha']) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y ="
    " (ns.y, ns.y) %}{% endfor %}"
)
EVIL = {
    **{
        f"{name} again and again": (
            "{% set x = range(20000)|list %}{% for i in range(20000) %}{{ x|FILTER|length }}{% endfor %}".replace(
                "FILTER", made
            )
        )
        for name, made in {
            "sort": "sort",
            "unique": "unique|list",
            "map": "map('string')|map('upper')|list",
            "batch": "batch(2)|list",
            "reverse": "reverse|list",
            "select": "select('odd')|list",
            "string": "string",
            "tojson": "tojson",
            "min": "map('string')|sort",
            "join": "join(',')",
        }.items()
    },
    "groupby": "{% set x = messages * 5000 %}{% for i in range(5000) %}{{ x|groupby('role')|length }}{% endfor %}",
    "dictsort": "{% set x = dict(messages[0]) %}{% for i in range(400000) %}{{ x|dictsort|length }}{% endfor %}",
    "title": "{% set s = 'a b ' * 100000 %}{% for i in range(1000) %}{{ s|title|length }}{% endfor %}",
    "search": "{% set s = 'a' * 5000000 %}{% for i in range(100000) %}{{ 'ab' in s }}{% endfor %}",
    **{
        f"laughs, {name}": LAUGHS + tail
        for name, tail in {
            "shown": "{{ ns.x }}",
            "compared": "{{ ns.x == ns.y }}",
            "as JSON": "{{ ns.x|tojson }}",
            "glued": "{{ '' ~ ns.x }}",
            "formatted": "{{ '%s' % ns.x }}",
            "in a method": "{{ '{}'.format(ns.x) }}",
            "joined": "{{ ns.x|join }}",
            "summed": "{{ ns.x + ns.y }}",
        }.items()
    },
    "laughs, dict": (
        "{% set ns = namespace(x=1) %}{% for i in range(40) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{"
        " ns.x|string|length }}"
    ),
    "laughs, dict()": (
        "{% set ns = namespace(x=1) %}{% for i in range(40) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}{{"
        " ns.x|string|length }}"
    ),
    "laughs, in a list of lists": (
        "{% set ns = namespace(x=[['a' * 1000] * 1000]) %}{% for i in range(9) %}{% set ns.x = ns.x * 100 %}{% endfor"
        " %}{{ ns.x }}"
    ),
    "powers of powers": (
        "{% set ns = namespace(x=10) %}{% for i in range(8) %}{% set ns.x = ns.x ** 64 %}{% endfor %}{{ ns.x > 1 }}"
    ),
    "products": (
        "{% set ns = namespace(x=999999999) %}{% for i in range(100000) %}{% set ns.x = ns.x * 999999999 %}{% endfor"
        " %}{{ ns.x > 1 }}"
    ),
    **{name: "{{ ('www.a.com ' * 300000)|FILTER|length }}".replace("FILTER", name) for name in sandbox.REFUSED},
}
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize("name", EVIL)
def test_nothing_holds_a_render(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.3)
    began = time.thread_time()
    with pytest.raises(TemplateError):
        Template("evil", EVIL[name]).render(MESSAGES, add_generation_prompt=True)
    assert time.thread_time() - began < 10


def test_many_renders_of_one_question_share_what_they_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stays within its own bound; the question ends all the same."""
    monkeypatch.setattr(sandbox, "QUESTION", 0.3)
    slow = "{% for i in range(20000) %}{{ i }}{% endfor %}"
    began = time.thread_time()
    with sandbox.allowance(), sandbox.allowance():
        done = 0
        while not sandbox.spent():
            Template("slow", slow).render(MESSAGES, add_generation_prompt=True)
            done += 1
        with pytest.raises(TemplateError, match="too long"):
            Template("slow", slow).render(MESSAGES, add_generation_prompt=True)
    assert 0 < done < 1000
    assert time.thread_time() - began < 10
    assert not sandbox.spent(), "the next question has its own"
    Template("slow", slow).render(MESSAGES, add_generation_prompt=True)


def test_what_templates_do_every_day_is_what_jinja_does() -> None:
    code = """
import jinja2.sandbox, random, time
from studio.text import sandbox
texts = ["{{ [1, 2] + [3] }}{{ (1, 'a') }}{{ {'a': [1]} }}",
         "{% for a, b in [(1, 2), (3, 4)] %}{{ a ~ b }}{% endfor %}",
         "{{ 2 ** 10 * 3 + 1 }}",
         "{% set x = {'a': 1} %}{{ x.a }}{{ x|items|list }}", "{{ messages|map(attribute='role')|join(',') }}",
         "{{ ('a', 'b')|tojson }}{{ [] }}{{ {} }}{{ () }}",
         "{{ messages[1:]|length }}{{ messages[0] in messages }}"
         "{{ 'a' if [] else 'b' }}{{ 1.5 * 2 }}{{ '-' * 10 }}{{ [0] * 3 }}"]
plain = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
plain.filters["tojson"] = sandbox._tojson
for text in texts:
    given = {"messages": [{"role": "user"}, {"role": "assistant"}]}
    assert sandbox.render(text, given) == plain.from_string(text).render(given), text
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-1500:]
