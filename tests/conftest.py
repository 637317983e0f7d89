"""Fixtures for all tests: a home of their own, a tiny model, the starter."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

gc.disable()  # until all is collected
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes: each reads what the first has compiled
sys.dont_write_bytecode = False
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when huggingface_hub is imported
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # several processes share few cores in these tests
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for heard, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(heard) == signal.SIG_IGN:
        signal.signal(
            heard,
            usual,
            # started in the background, or under nohup: what the tests start must still hear Ctrl-C and a closed
            # terminal
        )
settings.register_profile("studio", deadline=None, print_blob=True)
settings.load_profile("studio")

from studio import quick_imports  # noqa: E402, F401 - before gradio and peft
from studio.device import Device  # noqa: E402
from studio.home import PROJECT  # noqa: E402
from tests import tiny  # noqa: E402
from tests.readers import Transformers4  # noqa: E402

FEW_STEPS = tuple(
    f"training.{setting}"
    for setting in (
        *("max_steps=10", "eval_every=10", "batch_size=2", "accumulation=1", "learning_rate=3e-3"),
        *("threads=1", "samples=0"),  # several processes share few cores in these tests
    )
)  # the starter learns as much from twenty rows of the sample
LONGEST = (
    "e2e/test_first_run.py",
    "faults/test_faults.py",  # beside it: the starter is prepared once, and who else wants it would wait
    "e2e/test_terminal.py",
    "e2e/test_serving.py",
    "places/",
    "e2e/",
    "worker/test_several.py",
    "worker/test_pretended_accelerator.py",
    "test_doctor.py",
    "test_notebook.py",
    "test_estimate_trace.py",
    "worker/",
    "methods/",
)  # begun first: met last, one would keep the other workers idle
QUICK = (
    "base/test_shards.py",
    "data/test_containers.py",
    "data/test_formats.py",
    "data/test_problems.py",
    "data/test_shapes.py",
    "forecast/",
    "runs/test_diagnosis.py",
    "runs/test_log.py",
    "runs/test_signs.py",
    "test_config.py",
    "test_events.py",
    "test_home.py",
    "test_presets.py",
    "test_ranks.py",
    "test_resolve.py",
    "test_sandbox.py",
)  # the core's, without torch: python -m pytest -q -m quick
STARTER_HOME = os.environ.get("STUDIO_TEST_HOME")  # keeps the prepared starter between test runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rare", action="store_true", help="also the long forms of tests whose short form always runs")


def _is_quick(path: Path) -> bool:
    return path.relative_to(PROJECT / "tests").as_posix().startswith(QUICK)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Under `-m quick` the other files are not even imported: they bring torch."""
    other = (
        config.getoption("markexpr") == "quick"
        and collection_path.name.startswith("test_")
        and not _is_quick(collection_path)
    )
    return True if other else None


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector need not walk it for every test."""
    gc.enable()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: next(
            (place for place, start in enumerate(LONGEST) if item.nodeid.startswith(f"tests/{start}")), len(LONGEST)
        )
    )
    for item in items:
        if _is_quick(item.path):
            item.add_marker(pytest.mark.quick)
    if not config.getoption("--rare"):
        for item in items:
            if item.get_closest_marker("rare"):  # not by keyword: a folder may have that name
                item.add_marker(pytest.mark.skip(reason="a long form: --rare runs it"))


@pytest.fixture(autouse=True)
def _whole_floats() -> Iterator[None]:
    """A trainer that ran inside this process has told the processor to round tiny numbers to zero; the next test gets
    them back.
    """
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty STUDIO_HOME, for this process and those it starts; the Hub is off."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("STUDIO_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture(params=[True, False], ids=["bf16", "no-bf16"])
def processor(request: pytest.FixtureRequest) -> Device:
    """A pretended computer without a GPU: two cores, 24 GiB; with and without bf16 instructions.

    Bytes and seconds are told for it, not for this one.
    """
    return Device(
        kind="cpu", name="a pretended processor", memory=24 * 2**30, free=20 * 2**30, bf16=request.param, cores=2
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama (2 layers of width 32) with tokenizer and ChatML template."""
    return tiny.write(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short Alpaca rows in a JSON file."""
    file = tmp_path_factory.mktemp("data") / "rows.json"
    file.write_text(
        json.dumps(
            [{"instruction": f"Say the number {n}.", "input": "", "output": f"The number is {n}."} for n in range(40)]
        )
    )
    return file


@pytest.fixture(scope="session")
def starter_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the real starter model prepared in it; made once a session, or kept where STUDIO_TEST_HOME says."""
    from studio.base.starter import prepare

    folder = Path(STARTER_HOME) if STARTER_HOME else _shared(tmp_path_factory) / "starter-home"
    folder.mkdir(exist_ok=True)
    before = os.environ.get("STUDIO_HOME")
    os.environ["STUDIO_HOME"] = str(folder)
    try:
        prepare()
    finally:
        os.environ.pop("STUDIO_HOME")
        if before is not None:
            os.environ["STUDIO_HOME"] = before
    return folder


@pytest.fixture
def with_starter(home: Path, starter_home: Path) -> Path:
    """A fresh home in which the starter model is ready already."""
    (home / "models").symlink_to(starter_home / "models")
    return home


@pytest.fixture(scope="session")
def trained(
    starter_home: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, Any]:
    """The main job, done once for all workers through the terminal: the sample, the starter, LoRA.

    Every default with --rare; else a few short steps at a higher rate, which learn as much in a twentieth of the time.
    Gives the answer of `train sample --json` with `home` and `folder` added.
    """
    home = _shared(tmp_path_factory) / "trained"
    with FileLock(f"{home}.lock"):
        told = home / "answer.json"
        if not told.is_file():
            home.mkdir()
            (home / "models").symlink_to(starter_home / "models")
            done = terminal(
                ["train", "sample", "--json", *([] if request.config.getoption("--rare") else _typed(FEW_STEPS))],
                home,
                timeout=1500,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            told.write_text(done.stdout)
    answer = json.loads(told.read_text())
    return {**answer, "home": home, "folder": home / "runs" / answer["run"]}


@pytest.fixture(scope="session")
def transformers_4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transformers4]:
    """transformers 4.55 in an environment of its own: that of STUDIO_TRANSFORMERS_4=/path/to/python, else one made here
    (a gigabyte).
    """
    python = os.environ.get("STUDIO_TRANSFORMERS_4")
    if not python:
        folder = tmp_path_factory.mktemp("transformers4") / "venv"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        wanted = ["transformers==4.55.*", f"torch=={metadata.version('torch').partition('+')[0]}", "numpy"]
        subprocess.run([folder / "bin" / "pip", "install", "-q", *wanted], check=True, timeout=1800)
        python = str(folder / "bin" / "python")
    reader = Transformers4(python)
    assert reader.version.startswith("4.55.")
    yield reader
    reader.end()


def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test run have."""
    return (
        tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.getbasetemp()
    )


def _typed(settings: Iterable[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def terminal(arguments: list[str], home: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """python -m studio ARGUMENTS in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "studio", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "STUDIO_HOME": str(home), "HF_HUB_OFFLINE": "1"},
    )
