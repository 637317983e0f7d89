"""What a stranger's values, names and files could do, given to the page by hand, past every widget."""

from __future__ import annotations

import gzip
import io
import json
import math
import resource
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from studio import config
from studio.errors import StudioError
from studio.home import PROJECT, inside, slug, subfolder
from studio.methods import METHODS
from studio.run import create, runs
from studio.ui import guard
from studio.ui.questions import reads
from studio.ui.tune_form import form
from tests.ui.served import Page

EVIL: list[Any] = [
    "--x",
    "; touch marker",
    "a\nb: c",
    "../../up",
    "\0",
    "",
    "$(touch marker)",
    "1e999",
    10**400,
    -1,
    math.inf,
    math.nan,
    True,
    [],
    {},
    [[1]],
    {"a": 1},
]
PATHS = (
    "/etc/passwd",
    "../../../etc/passwd",
    "~/.ssh/id_rsa",
    "/proc/self/environ",
    "C:\\Windows\\win.ini",
    "file:///etc/passwd",
    "\0",
    "a" * 5000,
)


def knobs() -> list[tuple[str, str, str]]:
    """(method, section, key) of every knob of the form."""
    made = form()
    found = [("lora", section, knob["key"]) for section in ("model", "data", "training") for knob in made[section]]
    return found + [(method["name"], "method", knob["key"]) for method in made["methods"] for knob in method["knobs"]]


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize(("method", "section", "key"), knobs())
def test_every_knob_refuses_what_it_is_not(method: str, section: str, key: str, home: Path) -> None:
    for evil in EVIL:
        order: dict[str, Any] = {
            "model": {"source": "starter"},
            "data": {"train": "sample"},
            "method": {"name": method},
            "training": {},
        }
        order[section] = {**order[section], key: evil}
        try:
            made = config.build(order)
        except StudioError:
            continue
        assert finite(made.model_dump()), f"{section}.{key} took {evil!r}"
        assert config.parse(made.to_yaml()) == made, f"{section}.{key} = {evil!r} does not come back as it was"


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch marker']",
        "data: {train: !!python/name:os.system }",
        "a: &a [*a]",
        "&a [*a, *a, *a, *a]",
        "data: {train: &a [*a]}",
        "data: {train: sample, problems: &a {x: *a}}",
        "x: " + "[" * 190_000,
        "- " * 90_000,
        "{a: " * 40_000,
        "\x07",
        "data:\n\ttrain: sample",
        "a: b: c",
        "---\n---\n",
        "%YAML 9.9\n---\n",
        "[]",
        "7",
        "null",
        "data: {train: sample}\ntraining: {epochs: .inf}",
        "\n".join(f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else '1'}]" for n in range(20)),
    ],
    ids=range(19),
)
def test_nonsense_as_an_order_is_refused_in_words(page: Page, text: str) -> None:
    for answer in (page.job("start", text), page.job("estimate", text)):
        assert answer.status == 400
        assert answer.json["error"], text[:60]
    told = page.look("tune", "read", {"yaml": text})
    assert told.status == 200
    assert told.json["error"]["message"]
    assert not runs()
    assert not (PROJECT / "marker").exists()


@pytest.mark.parametrize("depth", [200, 900, 3000, 200_000])
def test_a_deep_question_is_refused_in_words(page: Page, depth: int) -> None:
    deep = '{"order": {"data": ' + "[" * depth + "]" * depth + '}, "name": "quick", "lang": "en"}'
    for name in reads():
        told = page.ask("POST", f"{guard.ASK}{name}", deep, Content_Type="application/json")
        assert told.status == 400
        assert told.body, name


def test_a_huge_order_is_refused(page: Page) -> None:
    assert "at most" in page.job("start", "name: " + "x" * 300_000).json["error"]
    assert page.look("tune", "read", {"yaml": "name: " + "x" * 3_000_000}).json["error"]


@pytest.mark.parametrize("evil", PATHS)
def test_no_text_of_any_job_or_question_reads_or_writes_elsewhere(
    gated: Page, page_home: Path, evil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that others can reach, and its owner's own cookie: a password that was guessed must not open the rest of
    the computer.
    """
    from tests.ui.test_login import sign_in

    monkeypatch.setattr("studio.queue.advance", lambda *a, **k: None)
    monkeypatch.setenv("STUDIO_PUBLIC", "1")
    cookie = sign_in(gated, "owner", "right horse")
    before = {path for path in page_home.parent.rglob("*") if not path.is_relative_to(page_home)}
    order = json.dumps({"data": {"train": evil}})
    given = [
        ("import", evil, evil),
        ("import", {"path": evil}, "x"),
        ("inspect", evil, "auto"),
        ("estimate", order),
        ("start", order),
        ("chat", evil, "hello"),
        ("chat", f"base:{evil}", "hello"),
        ("take_away", evil, "adapter"),
        ("chat_keep", {"id": evil, "turn": 0, "side": 0, "text": "x", "name": evil}),
    ]
    answers = [gated.job(*values, Cookie=cookie) for values in given]
    answers += [
        gated.job(name, evil, Cookie=cookie)
        for name in ("status", "resume", "pause", "delete", "chat_stop", "chat_delete")
    ]
    for answer in answers:
        assert answer.status in (400, 403, 422), answer.body[:300]
    for name in reads():
        part, _, function = name.partition("/")
        ask = {
            "id": evil,
            "ids": [evil],
            "name": evil,
            "kind": evil,
            "run": {"id": evil, "log": {}},
            "also": [{"id": evil}],
            "yaml": evil,
            "order": {"data": {"train": evil}, "model": evil},
            "row": 1,
            "search": evil,
        }
        answers.append(gated.look(part, function, ask, Cookie=cookie))
    for answer in answers:
        assert "root:" not in answer.body
        assert "BEGIN" not in answer.body
    assert {path for path in page_home.parent.rglob("*") if not path.is_relative_to(page_home)} == before
    assert not runs()


NAMES = (
    "..",
    ".",
    "/abs",
    "a/b",
    "C:\\x",
    "con",
    "",
    "x" * 300,
    "🎛️",
    "-rf",
    "a\nb",
    ".hidden",
    "<script>alert(1)</script>",
    "=HYPERLINK(1)",
    "名字",
    "a\0b",
    "%2e%2e",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_becomes_a_folder_of_its_own_or_nothing(name: str, home: Path) -> None:
    made = []
    for _ in range(2):
        try:
            made.append(create(config.build({"name": name, "data": {"train": "sample"}, "method": {"name": "lora"}})))
        except StudioError:
            continue
    for run in made:
        assert run.folder.parent == subfolder("runs")
        assert inside(subfolder("runs"), run.id) == run.folder
        assert not run.id.startswith((".", "-"))
        assert len(run.id) < 120
        assert run.id.isprintable()
    assert len({run.id for run in made}) == len(made)
    assert slug(name)


# -- files


READ = """
import pathlib, re, sys
from studio import data
from studio.errors import DataError
try:
    print("read", data.read(sys.argv[1]).rows)
except DataError as error:
    print("refused", error.message)
print(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
# ru_maxrss would tell the parent's too
"""


def read_within(path: Path, megabytes: int) -> str:
    """What a process of its own says of a file; it must not have held more than so much memory at any time."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000,) * 2),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, peak = done.stdout.strip().splitlines()
    assert int(peak) < 1000 * megabytes, f"{peak} KB for {path.stat().st_size} bytes"
    return said


def test_archives_are_refused(home: Path, tmp_path: Path) -> None:
    from studio import data

    up, packed = tmp_path / "up.zip", tmp_path / "up.tar.gz"
    with zipfile.ZipFile(up, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../escaped.json", "[]")
        file.writestr("bomb.json", " " * 50_000_000)
    with tarfile.open(packed, "w:gz") as file:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
        file.addfile(tarfile.TarInfo("../../escaped.json"), io.BytesIO())
    for path in (up, packed):
        with pytest.raises(StudioError):
            data.read(path)
    assert not list(tmp_path.parent.rglob("escaped.json"))


def test_a_gzip_bomb_is_read_within_bounds(home: Path, tmp_path: Path) -> None:
    """A line of a gigabyte in a few megabytes."""
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"instruction": "')
        for _ in range(1000):
            file.write(b"a" * 1_000_000)
        file.write(b'", "output": "b"}\n{"instruction": "a", "output": "b"}\n')
    assert "The value that begins in line 1 of bomb.jsonl.gz is longer than 64 MiB" in read_within(path, 700)


def test_a_packed_parquet_file_is_unpacked_on_the_disk_and_not_without_end(home: Path, tmp_path: Path) -> None:
    """Rows of one are found by its end, so that it has to be unpacked whole."""
    path = tmp_path / "bomb.parquet.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"PAR1")
        for _ in range(1100):
            file.write(bytes(1_000_000))
    assert "bomb.parquet.gz would unpack to more than 1,0" in read_within(path, 700)
    assert not list((home / "datasets").glob(".unpacked-*"))


def test_an_endless_line_and_millions_of_empty_ones(home: Path, tmp_path: Path) -> None:
    long, empty = tmp_path / "long.jsonl", tmp_path / "empty.jsonl"
    with open(long, "wb") as file:
        for _ in range(2000):
            file.write(b'{"instruction": "What is the capital of France, and why?", "output": "Paris."}\n' * 5)
        file.write(b'{"instruction": "')
        file.truncate(300_000_000)  # a hole reads as zeros: one line of three hundred megabytes
    with open(empty, "wb") as file:
        file.write(b'{"instruction": "a", "output": "b"}\n' + b"\n" * 10_000_000)
    assert "Line 10001 of long.jsonl is longer than 64 MiB" in read_within(long, 900)
    assert read_within(empty, 700) == "read 1"


# -- what it stands on


def test_tools_for_machines_are_off(page: Page) -> None:
    assert page.ask("GET", "/gradio_api/mcp/").status in (404, 405)
    assert page.ask("POST", "/gradio_api/mcp/", "{}", Content_Type="application/json").status in (404, 405)
    assert page.ask("GET", "/monitoring").status in (401, 403, 404)
    assert not page.blocks.run_history


def test_pins_are_above_the_advisories() -> None:
    """gradio 6.31 (routes, CORS, paths), torch 2.10 (weights_only), transformers 5.3 (remote code in a config)."""
    text = (PROJECT / "requirements.txt").read_text()
    pins = dict(
        line.replace("==", ">=").split(",")[0].split(">=")
        for line in text.splitlines()
        if line and not line.startswith("#")
    )
    least = {
        "gradio": (6, 31),
        "torch": (2, 10),
        "transformers": (5, 3),
        "huggingface_hub": (2, 0),
        "jinja2": (3, 1, 6),
    }
    for name, version in least.items():
        assert tuple(int(part) for part in pins[name].split(".")) >= version, name


def test_methods_have_no_free_path() -> None:
    """No knob of a method names a file or a program."""
    for kind in METHODS.values():
        for name in kind.model_fields:
            assert not any(word in name for word in ("path", "file", "command", "script")), f"{kind.name}.{name}"
