"""The worked examples of CONTRIBUTING.md work: each is put where it says, in a copy of the program, and is found and
used there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from studio import template
from studio.home import PROJECT

EXAMPLE = re.compile(r"^`((?:studio|templates)/[\w/.]+)`\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contributed")
    # with what is compiled already, but not what is just being written
    shutil.copytree(PROJECT / "studio", folder / "studio", ignore=shutil.ignore_patterns("*.pyc.*"))
    if not template.FOLDER.is_relative_to(PROJECT / "studio"):
        shutil.copytree(template.FOLDER, folder / template.FOLDER.name)
    found = EXAMPLE.findall((PROJECT / "CONTRIBUTING.md").read_text())
    assert len(found) == 7
    for name, text in found:
        assert not (folder / name).exists()
        (folder / name).write_text(text)
    return folder


def studio(copy: Path, home: Path, *commands: list[str]) -> list[dict | list]:
    """What commands answer that are given one after another in a process of that program."""
    code = "import json, sys; from studio.__main__ import main; sys.exit(max(map(main, json.loads(sys.argv[1]))))"
    given = json.dumps([[*words, "--json"] for words in commands])
    done = subprocess.run(
        [sys.executable, "-c", code, given],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "STUDIO_HOME": str(home), "PYTHONPATH": str(copy)},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    answers, at = [], 0
    while at < len(done.stdout.rstrip()):
        answer, at = json.JSONDecoder().raw_decode(done.stdout, at)
        answers.append(answer)
        at += 1  # the line's end
    return answers


def test_all_are_found(copy: Path, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    rows = tmp_path / "faq.json"
    rows.write_text(json.dumps([{"faq": {"q": "Why?", "a": "Because."}}] * 3 + [{"faq": {"q": "How?", "a": ""}}]))
    methods, stages, rewards, templates, places, count, told = studio(
        copy,
        home,
        ["methods"],
        ["stages"],
        ["rewards"],
        ["templates"],
        ["places"],
        ["count"],
        ["inspect", str(rows), "--model", str(tiny_model)],
    )
    assert "norms" in [one["name"] for one in methods]
    assert "hinge" in [one["name"] for one in stages]
    assert "no_question" in [one["name"] for one in rewards]
    assert "plainchat" in json.dumps(templates)
    assert "folder" in [one["kind"] for one in places]
    assert count == {}
    assert (told["format"], told["rows"], told["refused"]) == ("faq", 4, 1)


def test_they_train_together(copy: Path, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    """The method, on the format, with the template, at the place."""
    rows, order = tmp_path / "faq.json", tmp_path / "order.yaml"
    rows.write_text(json.dumps([{"faq": {"q": f"What is {n}?", "a": f"It is {n}."}} for n in range(20)]))
    order.write_text(
        json.dumps(
            {
                "model": str(tiny_model),
                "data": {"train": str(rows), "template": "plainchat", "max_length": 64},
                "method": "norms",
                "training": {"max_steps": 3, "probe": False},
                "place": {"kind": "folder", "path": str(tmp_path / "there")},
            }
        )
    )
    (told,) = studio(copy, home, ["train", str(order)])
    assert told["state"] == "finished"
    assert (Path(told["result"]) / "model.safetensors").is_file()


def test_the_stage_learns(copy: Path, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    rows = tmp_path / "pairs.json"
    pairs = [{"prompt": f"Is {n} even?", "chosen": "Yes." * 4, "rejected": "No!"} for n in range(0, 20, 2)]
    rows.write_text(json.dumps(pairs))
    (tmp_path / "order.yaml").write_text(
        f"{{model: {tiny_model}, data: {{train: {rows}, eval: 0, max_length: 200, template: alpaca}}, "
        "stage: {name: hinge, margin: 2}, training: {max_steps: 2, probe: false}}"
    )
    (told,) = studio(copy, home, ["train", str(tmp_path / "order.yaml")])
    assert told["state"] == "finished"
