"""What a stranger's model could do: code beside it, pickles in it.

And what becomes of our own token while one is trained.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from studio import config, preflight
from studio.errors import StudioError
from tests.conftest import terminal
from tests.ui.served import Page

MARK = "import pathlib; pathlib.Path({marker!r}).write_text('ran')\n"


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path(self.marker), "ran"))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def changed_copy(model: Path, to: Path, **config_values: Any) -> Path:
    to.mkdir()
    for file in model.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    told = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(told | config_values))
    return to


@pytest.mark.slow
def test_code_beside_a_model_is_not_run_and_our_token_is_written_nowhere(
    home: Path, tmp_path: Path, marker: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named in config.json, in a configuration within it, and in the tokenizer's: a model that trains as if the code
    were not there.
    """
    token = "hf_" + "Secret" * 5
    monkeypatch.setenv("HF_TOKEN", token)
    codes = {
        "AutoConfig": "evil.Config",
        "AutoModel": "evil.Model",
        "AutoModelForCausalLM": "evil.Model",
        "AutoTokenizer": ["evil.Tokenizer"] * 2,
    }
    model = changed_copy(tiny_model, tmp_path / "model", auto_map=codes, encoder_settings={"auto_map": codes})
    (model / "evil.py").write_text(
        MARK.format(marker=str(marker)) + "class Config: pass\nclass Model: pass\nclass Tokenizer: pass\n"
    )
    file = model / "tokenizer_config.json"
    file.write_text(json.dumps((json.loads(file.read_text()) if file.is_file() else {}) | {"auto_map": codes}))
    order = tmp_path / "order.yaml"
    order.write_text(
        f"model: '{model}'\ndata: {{train: '{tiny_data}', max_length: 64}}\nmethod: {{name: lora, rank: "
        f"2}}\ntraining: {{max_steps: 1}}\n"
    )
    done = terminal(["train", str(order), "--json"], home, timeout=240)
    assert not marker.exists()
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    run = json.loads(done.stdout)["run"]
    said = [
        done.stdout,
        done.stderr,
        terminal(["export", run, str(tmp_path / "out.zip"), "--to", "adapter", "--no-proof", "--json"], home).stdout,
    ]
    assert (tmp_path / "out.zip").is_file()
    said.append(terminal(["report", run, str(tmp_path / "report.html")], home).stdout)
    for file in [*home.rglob("*"), *tmp_path.rglob("*")]:
        if file.is_file():
            assert token.encode() not in file.read_bytes(), file
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as packed:
                    assert not any(token.encode() in packed.read(name) for name in packed.namelist())
    assert not any(token in text for text in said)


def test_a_model_of_pickles_is_refused(
    home: Path, tmp_path: Path, marker: Path, tiny_model: Path, tiny_data: Path
) -> None:
    model = changed_copy(tiny_model, tmp_path / "model")
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(str(marker))))
    order = config.build({"model": str(model), "data": {"train": str(tiny_data)}, "method": {"name": "lora"}})
    with pytest.raises(StudioError, match="pickle"):
        preflight.check(order)
    assert not marker.exists()


@pytest.mark.slow
def test_a_pickle_put_into_a_checkpoint_by_a_stranger_is_not_opened(
    home: Path, tmp_path: Path, marker: Path, tiny_model: Path, tiny_data: Path
) -> None:
    """A checkpoint's files stand in its manifest with their sizes; one that is another is no checkpoint of ours."""
    order = tmp_path / "order.yaml"
    order.write_text(
        f"model: '{tiny_model}'\ndata: {{train: '{tiny_data}', max_length: 64}}\nmethod: {{name: lora, rank: 2}}\n"
        "training: {max_steps: 2, save_every: 1}\n"
    )
    done = json.loads(terminal(["train", str(order), "--json"], home, timeout=240).stdout)
    folder = home / "runs" / done["run"]
    for file in folder.glob("checkpoints/checkpoint-*/*.pt"):
        file.write_bytes(pickle.dumps(Evil(str(marker))))
    terminal(["extend", done["run"], "1"], home, timeout=240)
    assert not marker.exists()


def test_the_page_tells_no_token(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "Secret" * 5)
    for path in ("/", "/config", "/gradio_api/info"):
        assert "hf_Secret" not in page.ask("GET", path).body
