"""The manual is tested: commands, tables and pins in the README are what the code says."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from studio.__main__ import parser
from studio.home import PROJECT
from studio.methods import METHODS

README = (PROJECT / "README.md").read_text()


def _between(mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n(.*?)(?:\n<!-- end -->|\n```\n(?!```))", README + "\n", re.S)
    assert found, f"the README has no <!-- {mark} -->"
    return found[1]


def test_front_matter_matches_the_pins() -> None:
    front = yaml.safe_load(README.split("---")[1])
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)", (PROJECT / "requirements.txt").read_text(), re.M))
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == pins["gradio"]
    assert (PROJECT / front["app_file"]).is_file()
    assert front["colorFrom"] in (colours := ["red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"])
    assert front["colorTo"] in colours
    assert len(front["short_description"]) <= 60


def test_the_lock_lies_within_the_ranges() -> None:
    """Exact versions of everything the ranges name, without what belongs to one machine: local versions, addresses,
    hashes.
    """
    lines = [line for line in (PROJECT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines)
    locked = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    ranges = [
        Requirement(line.partition("#")[0])
        for file in ("requirements.txt", "requirements-dev.txt")
        for line in (PROJECT / file).read_text().splitlines()
        if line[:1].isalpha()
    ]
    assert len(ranges) > 20
    for one in ranges:
        assert one.specifier.contains(locked[canonicalize_name(one.name)]), one


@pytest.mark.parametrize("mark", ["start command", "test command"])
def test_one_command_each(mark: str) -> None:
    lines = [line for line in _between(mark).splitlines() if line and not line.startswith("```")]
    assert len(lines) == 1
    for file in re.findall(r"-[rc] (\S+)", lines[0]):
        assert (PROJECT / file).is_file()


def test_every_command_shown_is_understood() -> None:
    shown = re.findall(r"^(?:\.venv/bin/)?python -m studio (.+)$", README, re.M)
    assert len(shown) >= 10
    for line in shown:
        words = shlex.split(line.split(" #")[0])
        parser().parse_args(words)  # exits on an unknown command or option


def test_every_command_is_shown() -> None:
    choices = next(action.choices for action in parser()._actions if action.choices)
    for name in choices:
        assert re.search(rf"python -m studio {name}\b", README), f"the README does not show `{name}`"


def test_methods_table() -> None:
    rows = [line for line in _between("methods").splitlines() if line.startswith("| `")]
    assert {row.split("`")[1] for row in rows} == set(METHODS)
    for row in rows:
        method = METHODS[row.split("`")[1]]
        assert f"| {method.learning_rate:.0e}".replace("e-0", "e-") in row, f"learning rate of {method.label}"


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", README):
        assert (PROJECT / target).exists(), target


def test_the_client_example_is_the_one_that_is_tested() -> None:
    assert (PROJECT / "tests" / "ui" / "example_client.py").read_text().rstrip() in README


def test_tables_are_what_was_measured() -> None:
    from tests import readme

    assert readme.written(README) == README, "run python -m tests.readme"
