"""One page for all tests of a file: a home of its own, the tiny model in it, served once."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.ui.serving import Reach
from studio.ui.who import WATCHER
from tests.ui.served import Page, served


@pytest.fixture(scope="module")
def page_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("page") / "home"
    folder.mkdir()
    before = {
        name: os.environ.get(name) for name in ("STUDIO_HOME", "HF_HUB_OFFLINE", "GRADIO_TEMP_DIR", "STUDIO_PUBLIC")
    }
    uploads = folder / "cache" / "gradio"  # where studio/page.py puts it
    os.environ |= {"STUDIO_HOME": str(folder), "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(uploads)}
    yield folder
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="module")
def page(page_home: Path) -> Iterator[Page]:
    with served() as found:
        yield found


@pytest.fixture(scope="module")
def gated(page_home: Path) -> Iterator[Page]:
    """A page that others could reach: a login for the owner, and one to watch."""
    with served(Reach(host="127.0.0.1", password="right horse", watch_password="only looking")) as found:
        yield found


@contextlib.contextmanager
def public_page() -> Iterator[Page]:
    """A page as a public Space serves it: who is not logged in may look and chat. Needs page_home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPACE_ID", "anna/studio")
        patch.setattr("studio.ui.space.role_of", lambda scope, here: WATCHER)
        with served(Reach(host="127.0.0.1")) as page:
            yield page


@pytest.fixture(scope="module")
def public(page_home: Path) -> Iterator[Page]:
    """A public page for all tests of a file, which need no other one."""
    with public_page() as page:
        yield page


@pytest.fixture
def order(tiny_model: Path, tiny_data: Path) -> dict:
    return {
        "model": str(tiny_model),
        "data": {"train": str(tiny_data), "max_length": 128},
        "method": {"name": "lora", "rank": 4},
        "training": {"max_steps": 2},
    }


@pytest.fixture
def order_yaml(order: dict) -> str:
    return json.dumps(order)  # JSON is YAML


@pytest.fixture
def with_small_starter(home: Path, tiny_model: Path) -> Path:
    """A home whose starter is the tiny model."""
    (home / "models").mkdir()
    (home / "models" / "starter").symlink_to(tiny_model)
    return home
